"""Files are written aside and renamed: a reader sees the old one or the new one, never half."""

import json
import math
from pathlib import Path
from typing import Any


def write_text(path: Path, text: str) -> None:
    """Write a text file, making its folder if need be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(path.name + ".writing")
    aside.write_text(text, encoding="utf-8")
    aside.replace(path)


def write_json(path: Path, document: dict[str, Any]) -> None:
    """Write a JSON document; a number that is not finite, which JSON has none of, becomes null."""
    text = json.dumps(_finite(document), indent=2, allow_nan=False)
    write_text(path, text + "\n")


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
