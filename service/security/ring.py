"""The keys that count now: read from their file, and read again when it changes."""

import hmac
from collections.abc import Callable
from pathlib import Path

from service.errors import KeysRefused
from service.logs import get_logger
from service.metrics import Metrics
from service.security.keys import MAX_KEY_CHARS, ApiKey, digest_of, key_id_of, read_key_file

# A change is noticed by the first request that comes this much later than the last look.
LOOK_EVERY_MS = 500
# What an unknown id is compared with; it is the hash of nothing that is known.
NOBODY = "0" * 64

# When, how long and which file: a file that was replaced or written differs in one of them.
Signature = tuple[int, int, int, int] | None


class KeyRing:
    """Finds the entry of a key; raises KeysRefused if the file is not right at the start.

    A file that is broken later, or gone, leaves the keys as they were, and is logged and counted.
    """

    def __init__(
        self,
        path: Path,
        metrics: Metrics,
        clock: Callable[[], int],
        is_equal: Callable[[str, str], bool] = hmac.compare_digest,
    ) -> None:
        self._path = path
        self._metrics = metrics
        self._clock = clock
        self._is_equal = is_equal
        self._log = get_logger(__name__)
        self._signature = _signature_of(path)
        self._keys = _by_id(path)
        self._looked_at_ms = clock()

    def find(self, text: str) -> ApiKey | None:
        """Return the entry of a key, None if there is none; an unknown id takes as long.

        The hash is always taken and always compared, in a time that does not depend on where the
        two differ.
        """
        self._look()
        key = self._keys.get(key_id_of(text))
        digest = digest_of(text[:MAX_KEY_CHARS])
        is_right = self._is_equal(digest, key.sha256 if key else NOBODY)
        return key if is_right and len(text) <= MAX_KEY_CHARS else None

    def _look(self) -> None:
        now_ms = self._clock()
        # A clock that was set back must not stop the looking.
        if abs(now_ms - self._looked_at_ms) < LOOK_EVERY_MS:
            return
        self._looked_at_ms = now_ms
        signature = _signature_of(self._path)
        if signature != self._signature:
            self._signature = signature
            self._reload()

    def _reload(self) -> None:
        try:
            self._keys = _by_id(self._path)
        except KeysRefused as exc:
            self._metrics.key_reloads.labels("refused").inc()
            self._log.error("keys not reloaded, the old ones stay", reason=str(exc))
            return
        self._metrics.key_reloads.labels("ok").inc()
        self._log.info("keys reloaded", num_keys=len(self._keys))


def _by_id(path: Path) -> dict[str, ApiKey]:
    return {key.id: key for key in read_key_file(path).keys}


def _signature_of(path: Path) -> Signature:
    try:
        found = path.stat()
    except OSError:
        return None
    return (found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino)
