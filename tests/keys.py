"""Files of API keys for tests, and the keys that go with them."""

from datetime import datetime
from pathlib import Path

from service.security.keys import (
    ApiKey,
    KeyFile,
    Scope,
    digest_of,
    key_id_of,
    new_key_text,
    write_key_file,
)


def entry_of(
    text: str,
    *scopes: Scope,
    expires_at: datetime | None = None,
    rate_limit_per_s: float | None = None,
) -> ApiKey:
    """Return the file's entry of a key."""
    return ApiKey(
        id=key_id_of(text),
        name="a test",
        sha256=digest_of(text),
        scopes=frozenset(scopes),
        expires_at=expires_at,
        rate_limit_per_s=rate_limit_per_s,
    )


def key_file(path: Path, *entries: ApiKey) -> Path:
    """Write a file of keys and return its path."""
    write_key_file(path, KeyFile(keys=entries))
    return path


def key_with(path: Path, *scopes: Scope) -> str:
    """Write a file of one key with these scopes and return the key."""
    text = new_key_text()
    key_file(path, entry_of(text, *scopes))
    return text


def bearer(text: str) -> dict[str, str]:
    """Return the headers of a call with a key."""
    return {"Authorization": f"Bearer {text}"}
