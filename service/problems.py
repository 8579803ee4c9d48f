"""The one place where an error becomes application/problem+json (RFC 9457)."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from http import HTTPStatus
from itertools import islice
from typing import Any, TypeAlias

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from service.contract.errors import InvalidField
from service.errors import BodyTooLarge, InvalidRequest, ServiceError, Unauthenticated
from service.logs import request_id

MEDIA_TYPE = "application/problem+json"
# The types are names, not pages; docs/api.md explains each.
TYPE_PREFIX = "urn:sojourn:problem:"
MAX_SHOWN_CHARS = 80
MAX_FIELD_PROBLEMS = 20

MethodsOf: TypeAlias = Callable[[str], Sequence[str]]

# Slug and title of what the framework refuses by itself.
_FRAMEWORK: dict[int, tuple[str, str]] = {
    HTTPStatus.BAD_REQUEST: ("malformed-body", "Malformed body"),
    HTTPStatus.NOT_FOUND: ("not-found", "Not found"),
    HTTPStatus.METHOD_NOT_ALLOWED: ("method-not-allowed", "Method not allowed"),
    BodyTooLarge.status: (BodyTooLarge.slug, BodyTooLarge.title),
}
_DETAILS: dict[int, str] = {
    HTTPStatus.BAD_REQUEST: "the body cannot be read as JSON in UTF-8",
    HTTPStatus.NOT_FOUND: "there is no such route; GET /docs lists them",
    HTTPStatus.METHOD_NOT_ALLOWED: "the route does not take this method; see the Allow header",
}


class FieldProblem(BaseModel):
    """One field that is wrong: which, its value (cut short), and what would be right."""

    model_config = ConfigDict(
        frozen=True,
        json_schema_extra={
            "examples": [
                {"field": "lat", "value": "91.0", "fix": "must be between -90 and 90 degrees"}
            ]
        },
    )

    field: str
    value: str
    fix: str


class Problem(BaseModel):
    """The body of every error."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "type": "urn:sojourn:problem:invalid-request",
                    "title": "Invalid request",
                    "status": 422,
                    "detail": "k: 0 should be greater than or equal to 1",
                    "instance": "6b1f0c8e2a7d4f53",
                    "errors": [
                        {"field": "k", "value": "0", "fix": "should be greater than or equal to 1"}
                    ],
                }
            ]
        }
    )

    type: str = Field(description="`urn:sojourn:problem:` and a name that never changes")
    title: str
    status: int
    detail: str
    instance: str | None = Field(None, description="The request's id, as in `X-Request-ID`")
    errors: list[FieldProblem] = []


class ProblemResponse(Response):
    """A problem as a response; always encodable, whatever a client sent."""

    media_type = MEDIA_TYPE

    def render(self, content: Any) -> bytes:
        """Encode with every character above ASCII escaped: half of a surrogate pair is one too."""
        return json.dumps(content, allow_nan=False, separators=(",", ":")).encode("ascii")


def problem_response(
    status: int,
    slug: str,
    detail: str,
    *,
    title: str | None = None,
    errors: Sequence[FieldProblem] = (),
    headers: Mapping[str, str] | None = None,
) -> ProblemResponse:
    """Return the response of one problem, with the id of the request it answers."""
    document: dict[str, Any] = {
        "type": TYPE_PREFIX + slug,
        "title": title or HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "instance": request_id.get() or None,
    }
    if errors:
        document["errors"] = [error.model_dump() for error in errors]
    return ProblemResponse(document, status, headers=dict(headers or {}))


def service_problem(exc: ServiceError) -> ProblemResponse:
    """Return the response of one of the service's own errors."""
    headers: dict[str, str] = {}
    if exc.retry_after_s is not None:
        headers["Retry-After"] = str(exc.retry_after_s)
    if isinstance(exc, BodyTooLarge):
        # The rest of the body is still on its way and nobody will read it.
        headers["Connection"] = "close"
    if isinstance(exc, Unauthenticated):
        headers["WWW-Authenticate"] = 'Bearer realm="sojourn"'
    errors = [
        FieldProblem(field=printable(error.field), value="", fix=printable(error.message))
        for error in (exc.errors if isinstance(exc, InvalidRequest) else ())
    ]
    return problem_response(
        exc.status,
        exc.slug,
        printable(exc.message),
        title=exc.title,
        errors=errors,
        headers=headers,
    )


def route_problem(status: int, headers: Mapping[str, str] | None = None) -> ProblemResponse:
    """Return what the framework's 404 or 405 becomes, for middleware that answers before it."""
    slug, title = _FRAMEWORK[status]
    return problem_response(status, slug, _DETAILS[status], title=title, headers=headers)


def internal_problem() -> ProblemResponse:
    """Return the response of an error of ours; what happened is in the log, not in the answer."""
    detail = "the request failed here; the log has the reason under this request id"
    return problem_response(HTTPStatus.INTERNAL_SERVER_ERROR, "internal", detail)


def field_problem(exc: InvalidField) -> FieldProblem:
    """Return what is wrong with a field of the contract."""
    return FieldProblem(field=printable(exc.field), value=shown(exc.value), fix=exc.fix)


def field_problems(errors: Iterable[Mapping[str, Any]]) -> list[FieldProblem]:
    """Return pydantic's errors, the first MAX_FIELD_PROBLEMS of them; never an empty list."""
    found = [_field_problem(error) for error in islice(errors, MAX_FIELD_PROBLEMS)]
    return found or [FieldProblem(field="body", value="", fix="is not valid")]


def shown(value: object) -> str:
    r"""Return a value as short, printable text.

    >>> print(shown(float("nan")), shown("a" * 100)[:5], shown("\ud800"))
    NaN 'aaaa '\ud800'
    """
    if value is None or isinstance(value, bool | float):
        return json.dumps(value)
    text = printable(repr(value))
    return text if len(text) <= MAX_SHOWN_CHARS else text[: MAX_SHOWN_CHARS - 1] + "…"


def printable(text: str) -> str:
    """Return text that every encoder takes, lone surrogates escaped."""
    return text.encode("utf-8", "backslashreplace").decode()


def register_problem_handlers(app: FastAPI, methods_of: MethodsOf) -> None:
    """Make every error that the framework sees leave as a problem.

    `methods_of` returns the methods that a path takes: the framework knows of one route of a path
    that fits, and `Allow` is to list what all of them take (RFC 9110, section 10.2.1).
    """

    async def on_http_exception(request: Request, exc: Exception) -> Response:
        answer = await _on_http_exception(request, exc)
        if answer.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
            answer.headers["Allow"] = ", ".join(methods_of(request.scope["path"]))
        return answer

    app.add_exception_handler(ServiceError, _on_service_error)
    app.add_exception_handler(InvalidField, _on_invalid_field)
    app.add_exception_handler(RequestValidationError, _on_invalid_request)
    app.add_exception_handler(HTTPException, on_http_exception)


# Starlette types handlers by their widest error, so each narrows its own.
async def _on_service_error(_request: Request, exc: Exception) -> Response:
    if not isinstance(exc, ServiceError):
        raise exc
    return service_problem(exc)


async def _on_invalid_field(_request: Request, exc: Exception) -> Response:
    if not isinstance(exc, InvalidField):
        raise exc
    return _unprocessable([field_problem(exc)])


async def _on_invalid_request(_request: Request, exc: Exception) -> Response:
    if not isinstance(exc, RequestValidationError):
        raise exc
    errors = exc.errors()
    if any(error["type"] == "json_invalid" for error in errors):
        place = errors[0]["loc"][-1]
        reason = errors[0].get("ctx", {}).get("error", "malformed")
        detail = f"the body is no JSON: {reason} at character {place}"
        slug, title = _FRAMEWORK[HTTPStatus.BAD_REQUEST]
        return problem_response(HTTPStatus.BAD_REQUEST, slug, printable(detail), title=title)
    return _unprocessable(field_problems(errors))


async def _on_http_exception(_request: Request, exc: Exception) -> Response:
    if not isinstance(exc, HTTPException):
        raise exc
    slug, title = _FRAMEWORK.get(exc.status_code, ("http", None))
    detail = _DETAILS.get(exc.status_code, printable(exc.detail))
    return problem_response(exc.status_code, slug, detail, title=title, headers=exc.headers)


def _unprocessable(errors: Sequence[FieldProblem]) -> ProblemResponse:
    first = errors[0]
    detail = f"{first.field}: {first.value} {first.fix}"
    kind = InvalidRequest
    return problem_response(kind.status, kind.slug, detail, title=kind.title, errors=errors)


def _field_problem(error: Mapping[str, Any]) -> FieldProblem:
    parts = [str(part) for part in error["loc"]]
    # Where the framework found it (body, query, path) is not part of a field's name.
    named = parts[1:] if parts[:1] in (["body"], ["query"], ["path"]) else parts
    field = ".".join(named) or "body"
    return FieldProblem(field=printable(field), value=shown(error.get("input")), fix=_fix(error))


def _fix(error: Mapping[str, Any]) -> str:
    kind = error["type"]
    if kind == "extra_forbidden":
        return "is no field here; remove it or correct its name"
    if kind == "missing":
        return "is missing; the field is required"
    if kind in ("model_attributes_type", "model_type", "dict_type"):
        return "should be a JSON object; send it with Content-Type: application/json"
    message = str(error["msg"])
    return printable(message.removeprefix("Input ").removeprefix("Value error, "))
