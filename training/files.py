"""Files are written aside and renamed: a reader sees the old one or the new one, never half."""

from pathlib import Path


def write_text(path: Path, text: str) -> None:
    """Write a text file, making its folder if need be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(path.name + ".writing")
    aside.write_text(text, encoding="utf-8")
    aside.replace(path)
