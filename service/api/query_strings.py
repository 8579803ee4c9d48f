"""Query strings, read once for each that differs.

The framework reads every request's query string through its machinery for dependencies, which takes
longer than a small catalogue's ranking. Clients send few different ones, so what was read is kept.
"""

from collections import defaultdict
from collections.abc import Callable, Container
from functools import lru_cache
from typing import Any, TypeVar
from urllib.parse import parse_qsl

from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError

Model = TypeVar("Model", bound=BaseModel)
MAX_KEPT = 1_024
MAX_KEPT_BYTES = 256


def query_reader(model: type[Model], lists: Container[str]) -> Callable[[bytes], Model]:
    """Return what reads a query string as a model; its result is shared, so the model is frozen.

    Of a parameter that is given again the last one counts, unless it is one of `lists`. Raises
    RequestValidationError, as the framework does.
    """

    def read(query_string: bytes) -> Model:
        values: defaultdict[str, list[str]] = defaultdict(list)
        for name, value in parse_qsl(query_string.decode("latin-1"), keep_blank_values=True):
            values[name].append(value)
        given = {name: found if name in lists else found[-1] for name, found in values.items()}
        try:
            return model.model_validate(given)
        except ValidationError as exc:
            errors = exc.errors(include_url=False)
            raise RequestValidationError(
                [error | {"loc": ("query", *error["loc"])} for error in errors]
            ) from exc

    kept = lru_cache(MAX_KEPT)(read)
    # Long ones are hardly sent twice, and would fill the memory.
    return lambda raw: kept(raw) if len(raw) <= MAX_KEPT_BYTES else read(raw)


def query_parameters(model: type[BaseModel], *path_names: str) -> dict[str, Any]:
    """Return what an operation's OpenAPI says of a path's and a model's parameters."""
    parameters = [
        {
            "in": "path",
            "name": name,
            "required": True,
            "schema": {"title": name.replace("_", " ").title(), "type": "string"},
        }
        for name in path_names
    ]
    for name, schema in model.model_json_schema()["properties"].items():
        # None is the default of what may be absent, and no value that could be sent.
        if schema.get("default", "") is None:
            del schema["default"]
        said = {"description": schema["description"]} if "description" in schema else {}
        parameters.append(
            {"in": "query", "name": name, "required": False, "schema": schema, **said}
        )
    return {"parameters": parameters}
