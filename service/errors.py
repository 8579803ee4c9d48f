"""The error tree: what can go wrong, the status it becomes and its slug; no HTTP library."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar


class ServiceError(Exception):
    """A failure that a caller is told about; `message` names the thing and the number.

    `retry_after_s` is how long a caller should wait before it tries again, None if it should not.
    """

    status: ClassVar[int] = 500
    slug: ClassVar[str] = "internal"
    title: ClassVar[str] = "Internal error"
    retry_after_s: int | None = None

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class BundleRefused(ServiceError):
    """The bundle on disk does not match its manifest or this build."""

    status = 503
    slug = "bundle-refused"
    title = "Bundle refused"


class UnknownModel(ServiceError):
    """The folder of bundles has no bundle of this version."""

    status = 404
    slug = "unknown-model"
    title = "Unknown model"


class ModelRefused(ServiceError):
    """The bundle that was asked for cannot be served; the one before it still is."""

    status = 409
    slug = "model-refused"
    title = "Model refused"


class NoPreviousModel(ServiceError):
    """There is no model to go back to."""

    status = 409
    slug = "no-previous-model"
    title = "No previous model"


class StoreUnavailable(ServiceError):
    """Redis did not answer, or answered with an error."""

    status = 503
    slug = "store-unavailable"
    title = "Store unavailable"

    def __init__(self, message: str, *, retry_after_s: int = 1) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class StoreMismatch(ServiceError):
    """The data in Redis was written with another layout or number of partitions."""

    status = 503
    slug = "store-mismatch"
    title = "Store mismatch"


class UserChanging(ServiceError):
    """A user got new events again and again while being merged into another one."""

    status = 503
    slug = "user-changing"
    title = "User is changing"
    retry_after_s = 1


class PastEventsRefused(ServiceError):
    """The events to begin with cannot be read."""

    status = 503
    slug = "past-events-refused"


class EmbeddedServerFailed(ServiceError):
    """The embedded server is missing, in use by another process, or did not start."""

    status = 503
    slug = "embedded-server-failed"
    title = "Embedded server failed"


class Overloaded(ServiceError):
    """A bounded queue is full; the request was not begun."""

    status = 503
    slug = "overloaded"
    title = "Overloaded"

    def __init__(self, message: str, *, retry_after_s: int = 1) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class NotReady(ServiceError):
    """The service is starting or stopping."""

    status = 503
    slug = "not-ready"
    title = "Not ready"
    retry_after_s = 1


class CursorExpired(ServiceError):
    """The list that a cursor goes on with is gone, or was made for somebody else."""

    status = 410
    slug = "cursor-expired"
    title = "Cursor expired"


class CatalogueFull(ServiceError):
    """Callers have put as many items as may be live."""

    status = 507
    slug = "catalogue-full"
    title = "Catalogue full"


class UnknownItem(ServiceError):
    """Neither the bundle nor the live catalogue has the item."""

    status = 404
    slug = "unknown-item"
    title = "Unknown item"


@dataclass(frozen=True, slots=True)
class FieldError:
    """One wrong field of a request: where it is (`events.3.lat`) and what would be right."""

    field: str
    message: str


class InvalidRequest(ServiceError):
    """The request can be read but says something impossible."""

    status = 422
    slug = "invalid-request"
    title = "Invalid request"

    def __init__(self, message: str, errors: Sequence[FieldError] = ()) -> None:
        super().__init__(message)
        self.errors = tuple(errors)


class BodyTooLarge(ServiceError):
    """The request's body has more bytes than the service takes."""

    status = 413
    slug = "body-too-large"
    title = "Body too large"


class TelemetryMissing(ServiceError):
    """Traces are wanted, and the packages that make and send them are not installed."""

    status = 503
    slug = "telemetry-missing"
    title = "Telemetry missing"


class KeysRefused(ServiceError):
    """The file of API keys cannot be read, is open to others, or says something impossible."""

    status = 503
    slug = "keys-refused"
    title = "Keys refused"


class Unauthenticated(ServiceError):
    """The call came without a key, or with one that does not count."""

    status = 401
    slug = "unauthenticated"
    title = "Unauthenticated"


class Forbidden(ServiceError):
    """The key is right and may not do this."""

    status = 403
    slug = "forbidden"
    title = "Forbidden"


class TooManyRequests(ServiceError):
    """The key has used up what it may ask in this time."""

    status = 429
    slug = "rate-limited"
    title = "Rate limited"

    def __init__(self, message: str, *, retry_after_s: int = 1) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class TooManyAttempts(TooManyRequests):
    """An address has sent too many wrong keys."""

    slug = "too-many-attempts"
    title = "Too many attempts"
