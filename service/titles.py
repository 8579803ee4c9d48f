"""The titles of a catalogue by item index."""

from collections.abc import Mapping, Sequence


class Titles:
    """Titles of items, the first of which has the index 1; None where there is none.

    `changed` lies over them by index, so that a change does not copy the rest.
    """

    def __init__(
        self, titles: Sequence[str | None], changed: Mapping[int, str | None] | None = None
    ) -> None:
        self._titles = titles
        self._changed = changed or {}

    def __getitem__(self, index: int) -> str | None:
        if index in self._changed:
            return self._changed[index]
        return self._titles[index - 1] if 0 < index <= len(self._titles) else None

    def patched(self, changed: Mapping[int, str | None]) -> "Titles":
        """Return the titles in which these are as given."""
        return Titles(self._titles, {**self._changed, **changed})
