"""One entry of a batch, right or wrong by itself: one bad entry does not lose the others."""

from collections.abc import Callable
from typing import Any, Generic, TypeVar, get_args

from pydantic import BaseModel, GetCoreSchemaHandler, ValidationError
from pydantic_core import core_schema

from service.contract.errors import InvalidField
from service.problems import FieldProblem, field_problem, field_problems

Body = TypeVar("Body", bound=BaseModel)
Result = TypeVar("Result")


class Attempt(Generic[Body]):
    """A body that was read, or what is wrong with it. Its JSON schema is the body's."""

    def __init__(self, raw: object, body: Body | None, problem: FieldProblem | None) -> None:
        self.raw = raw
        self.body = body
        self.problem = problem

    @classmethod
    def __get_pydantic_core_schema__(
        cls, source: Any, handler: GetCoreSchemaHandler
    ) -> core_schema.CoreSchema:
        """Validate as the body, and keep what is wrong instead of raising it."""
        [body] = get_args(source)
        return core_schema.no_info_wrap_validator_function(cls._attempt, handler(body))

    @classmethod
    def _attempt(cls, raw: Any, validate: core_schema.ValidatorFunctionWrapHandler) -> Any:
        try:
            return cls(raw, validate(raw), None)
        except ValidationError as exc:
            return cls(raw, None, field_problems(exc.errors(include_url=False))[0])

    def convert(self, to: Callable[[Body], Result]) -> Result | FieldProblem:
        """Return what the body stands for, or what is wrong with it."""
        if self.body is None:
            return self.problem or FieldProblem(field="entry", value="", fix="must be an object")
        try:
            return to(self.body)
        except InvalidField as exc:
            return field_problem(exc)

    def said(self, name: str) -> str | None:
        """Return a text of the entry as it was sent, None if there is none."""
        value = self.raw.get(name) if isinstance(self.raw, dict) else None
        return value if type(value) is str else None
