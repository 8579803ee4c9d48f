"""API keys: what one looks like, what is kept of it, and the file that keeps it."""

import hashlib
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from fcntl import LOCK_EX, flock
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Annotated, Literal, get_args

from pydantic import (
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    field_serializer,
    model_validator,
)

from service.errors import KeysRefused

Scope = Literal["write-events", "recommend", "catalogue", "privacy", "admin"]
SCOPES: tuple[Scope, ...] = get_args(Scope)

PREFIX = "sjn"
KEY_ID_BYTES = 6
# 256 bits: nobody tries them all, so a fast hash keeps the secret as well as a slow one.
SECRET_BYTES = 32
MAX_KEY_CHARS = 256
NEW_FILE_MODE = 0o600
WRITABLE_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH


class ApiKey(BaseModel):
    """One entry of the file: everything about a key but the key.

    `sha256` is of the whole text of the key; a rate limit of 0 is none, None is the service's own.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    id: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{12}$")]
    name: Annotated[str, StringConstraints(min_length=1, max_length=100)]
    sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
    scopes: Annotated[frozenset[Scope], Field(min_length=1)]
    expires_at: AwareDatetime | None = None
    rate_limit_per_s: Annotated[float, Field(ge=0, le=1_000_000)] | None = None

    @field_serializer("scopes")
    def _in_order(self, scopes: frozenset[Scope]) -> list[Scope]:
        return [scope for scope in SCOPES if scope in scopes]

    def has_expired(self, now_ms: int) -> bool:
        """Whether its time is over."""
        return self.expires_at is not None and now_ms >= self.expires_at.timestamp() * 1000


class KeyFile(BaseModel):
    """The file of keys; ids are different."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    version: Literal[1] = 1
    keys: tuple[ApiKey, ...] = ()

    @model_validator(mode="after")
    def _ids_differ(self) -> "KeyFile":
        if len({key.id for key in self.keys}) != len(self.keys):
            raise ValueError("two keys have the same id")
        return self


def new_key_text() -> str:
    """Return a new key, `sjn_<key id>_<secret>`; it is kept nowhere."""
    return f"{PREFIX}_{secrets.token_hex(KEY_ID_BYTES)}_{secrets.token_urlsafe(SECRET_BYTES)}"


def key_id_of(text: str) -> str:
    """Return the id that a key names, empty if the text is no key."""
    prefix, _, rest = text.partition("_")
    key_id, _, secret = rest.partition("_")
    return key_id if prefix == PREFIX and secret else ""


def digest_of(text: str) -> str:
    """Return what is kept of a key: the SHA-256 of its text, in hexadecimal."""
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()


def read_key_file(path: Path) -> KeyFile:
    """Read and check the file; raises KeysRefused, whose message repeats nothing of the content.

    Whoever can write the file can make keys, so one that others may write is refused. It holds no
    secret, so others may read it: mounted secrets often are readable.
    """
    try:
        with path.open("rb") as stream:
            mode = os.fstat(stream.fileno()).st_mode
            content = stream.read()
    except OSError as exc:
        raise KeysRefused(f"{path}: {exc.strerror}") from exc
    if mode & WRITABLE_BY_OTHERS:
        shown = stat.filemode(mode)
        raise KeysRefused(f"{path}: {shown} lets others write it; run chmod go-w on it")
    try:
        return KeyFile.model_validate_json(content)
    except ValidationError as exc:
        first = exc.errors(include_input=False, include_context=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise KeysRefused(f"{path}: {where}: {first['msg']}") from None


def write_key_file(path: Path, content: KeyFile) -> None:
    """Replace the file in one step, so that no reader meets half of it; its mode stays.

    Raises OSError if the directory cannot be written.
    """
    mode = stat.S_IMODE(path.stat().st_mode) if path.exists() else NEW_FILE_MODE
    with NamedTemporaryFile("wb", dir=path.parent, prefix=f".{path.name}.", delete=False) as stream:
        temporary = Path(stream.name)
        try:
            stream.write(content.model_dump_json(indent=1, exclude_none=True).encode() + b"\n")
            stream.flush()
            os.fsync(stream.fileno())
            temporary.chmod(mode & ~WRITABLE_BY_OTHERS)
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


@contextmanager
def changing(path: Path) -> Iterator[KeyFile]:
    """Yield the file's content, an empty one if there is none, while no other command changes it.

    Raises KeysRefused or OSError.
    """
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        flock(directory, LOCK_EX)
        yield read_key_file(path) if path.exists() else KeyFile()
    finally:
        os.close(directory)
