"""What Amazon says of a product, as plain text: lists written as text, entities, tags."""

import ast
import html
import re
import warnings
from collections.abc import Iterator

from service.contract.items import MAX_TEXT_ATTRIBUTE_CHARS, attributes_json

_TAG = re.compile(r"</?[A-Za-z][^<>]*>")


def item_row(
    item_id: object, *, title: object, description: object, brand: object, categories: object
) -> dict[str, object]:
    """Return a product as columns of ITEM_SCHEMA; its text is the brand, then the description."""
    name = plain_text(brand)[:MAX_TEXT_ATTRIBUTE_CHARS]
    text = "\n".join(part for part in (plain_text(brand), plain_text(description)) if part)
    names = [plain for part in _parts(categories) if (plain := _plain(part))]
    return {
        "item_id": str(item_id),
        "title": plain_text(title) or None,
        "text": text or None,
        "categories": list(dict.fromkeys(names)),
        "attributes": attributes_json({"brand": name} if name else {}),
    }


def plain_text(value: object) -> str:
    """Return a text, a list of texts, or a list written as text, without markup, in one line.

    What looks like a list and cannot be read as one is kept as the text it is.
    """
    return " ".join(text for part in _parts(value) if (text := _plain(part)))


def _plain(text: str) -> str:
    return " ".join(_TAG.sub(" ", html.unescape(text)).split())


def _parts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        value = _list_in(value) if value.startswith("[") else value
    if isinstance(value, list):
        for part in value:
            yield from _parts(part)
    elif value is not None:
        yield str(value)


def _list_in(text: str) -> object:
    try:
        with warnings.catch_warnings(action="ignore"):  # a backslash in a description is no escape
            return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return text
