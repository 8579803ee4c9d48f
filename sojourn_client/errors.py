"""What can go wrong, told apart by type: no answer, an answer that says no, a full queue."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

TYPE_PREFIX = "urn:sojourn:problem:"
MAX_DETAIL_CHARS = 300


class SojournError(Exception):
    """Anything that this package raises for what happened outside the caller's own code."""


class NoAnswer(SojournError):
    """Nobody answered: no connection, a broken one, or none in time.

    The service may have done what was asked. `was_sent` is False where it cannot have.
    """

    def __init__(self, message: str, *, was_sent: bool = True) -> None:
        super().__init__(message)
        self.was_sent = was_sent


class BadAnswer(SojournError):
    """There was an answer that this client cannot read; the message names where."""


@dataclass(frozen=True, slots=True)
class FieldProblem:
    """One field that is wrong: which, its value as text (cut short), and what would be right."""

    field: str
    value: str = ""
    fix: str = ""


class Refused(SojournError):
    """The service said no: an RFC 9457 problem.

    `slug` is the last word of the problem's type and never changes; `request_id` finds the line in
    the service's log; `retry_after_s` is how long to wait, None if it makes no sense to ask again.
    `is_problem` is False for what something between here and the service has answered.
    """

    def __init__(
        self,
        status: int,
        slug: str,
        detail: str,
        *,
        title: str = "",
        errors: Sequence[FieldProblem] = (),
        request_id: str | None = None,
        retry_after_s: float | None = None,
        is_problem: bool = True,
    ) -> None:
        named = f" (request {request_id})" if request_id else ""
        super().__init__(f"{status} {slug}: {detail}{named}")
        self.status = status
        self.slug = slug
        self.detail = detail
        self.title = title
        self.errors = tuple(errors)
        self.request_id = request_id
        self.retry_after_s = retry_after_s
        self.is_problem = is_problem


class InvalidRequest(Refused):
    """400, 413, 422: what was sent is wrong; `errors` names the fields."""


class Unauthenticated(Refused):
    """401: no key, an unknown one, or one that has expired."""


class Forbidden(Refused):
    """403: the key has not the scope."""


class NotFound(Refused):
    """404: no such item, model or route; `slug` tells which."""


class Conflict(Refused):
    """409: the model was refused, or there is nothing to roll back to."""


class CursorExpired(Refused):
    """410: the list of a cursor is gone; ask for its first page again."""


class RateLimited(Refused):
    """429: more than the key may ask."""


class Unavailable(Refused):
    """502, 503, 504: not now."""


class CatalogueFull(Refused):
    """507: as many items are live as may be."""


BY_STATUS: Mapping[int, type[Refused]] = {
    400: InvalidRequest,
    401: Unauthenticated,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    410: CursorExpired,
    413: InvalidRequest,
    422: InvalidRequest,
    429: RateLimited,
    502: Unavailable,
    503: Unavailable,
    504: Unavailable,
    507: CatalogueFull,
}


def refused(
    status: int, document: object, *, text: str, request_id: str | None, retry_after_s: float | None
) -> Refused:
    """Return the error of an answer that is no success; `document` is its JSON, None without any.

    Whatever the document looks like there is an error: a proxy's page of HTML is one too.
    """
    kind = BY_STATUS.get(status, Refused)
    if not isinstance(document, Mapping) or not str(document.get("type", "")).startswith(
        TYPE_PREFIX
    ):
        return kind(
            status,
            "http",
            text[:MAX_DETAIL_CHARS] or "the answer has no body",
            request_id=request_id,
            retry_after_s=retry_after_s,
            is_problem=False,
        )
    return kind(
        status,
        str(document["type"]).removeprefix(TYPE_PREFIX),
        str(document.get("detail", "")),
        title=str(document.get("title", "")),
        errors=_field_problems(document.get("errors")),
        request_id=str(document.get("instance") or "") or request_id,
        retry_after_s=retry_after_s,
    )


class QueueFull(SojournError):
    """The sender's queue has no room, and had none for as long as it was told to wait."""


class SenderClosed(SojournError):
    """The sender takes no events any more."""


class SenderForked(SojournError):
    """The sender was made in another process; its thread is not in this one."""


class NotDelivered(SojournError):
    """Events could not be delivered in time and there is no spool; they are in `events`."""

    def __init__(self, message: str, events: Sequence[Any] = ()) -> None:
        super().__init__(message)
        self.events = tuple(events)


class SpoolInUse(SojournError):
    """Another process has the spool; each needs a file of its own."""


class SpoolDamaged(SojournError):
    """A line of the spool cannot be read; it is kept in the file beside it."""

    def __init__(self, line_number: int, reason: str, kept_in: str) -> None:
        super().__init__(f"line {line_number} of the spool {reason}; it is kept in {kept_in}")
        self.line_number = line_number
        self.reason = reason


def _field_problems(errors: object) -> list[FieldProblem]:
    if not isinstance(errors, list):
        return []
    return [
        FieldProblem(*(str(error.get(name, "")) for name in ("field", "value", "fix")))
        for error in errors
        if isinstance(error, Mapping)
    ]
