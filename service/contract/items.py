"""The item: what is known of one thing that can be recommended."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, TypeAlias

from service.contract.errors import InvalidField
from service.contract.events import ItemId

MAX_ATTRIBUTES = 64
MAX_ATTRIBUTE_NAME_CHARS = 64
MAX_TEXT_ATTRIBUTE_CHARS = 256
MAX_LISTED_VALUES = 64
# Longer than any encoder reads: cut there, the tokenizer does not read the rest for nothing.
MAX_READ_CHARS = 8_192

# A text, a number, true or false, or several texts.
AttributeValue: TypeAlias = str | float | bool | tuple[str, ...]
_NO_ATTRIBUTES: Mapping[str, AttributeValue] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Item:
    """One item. Coordinates are WGS 84 degrees, `released_at_ms` ms since the epoch, UTC.

    `opening_hours` is in the syntax of OpenStreetMap, in the place's own local time; `attributes`
    is flat, and a name keeps one type over the whole catalogue for filters to find it.
    """

    item_id: ItemId
    title: str | None = None
    text: str | None = None
    categories: tuple[str, ...] = ()
    attributes: Mapping[str, AttributeValue] = field(default_factory=lambda: _NO_ATTRIBUTES)
    lat: float | None = None
    lon: float | None = None
    opening_hours: str | None = None
    available: bool = True
    released_at_ms: int | None = None


def item_text(title: str | None, text: str | None, categories: Sequence[str]) -> str:
    """Return what a text encoder reads of an item: title, text, category names; "" for nothing.

    Training and service both read this, so an item has one vector wherever it is made.

    >>> item_text("Tea", None, ["Drinks", "Leaves"])
    'Tea Drinks Leaves'
    """
    joined = " ".join(part for part in (title, text, *categories) if part)
    return " ".join(joined[:MAX_READ_CHARS].split())


def check_attributes(attributes: Mapping[str, Any]) -> dict[str, AttributeValue]:
    """Return attributes with lists as tuples and numbers as floats; raises InvalidField."""
    if len(attributes) > MAX_ATTRIBUTES:
        raise InvalidField("attributes", len(attributes), f"may have {MAX_ATTRIBUTES} entries")
    return {_name(name): _value(f"attributes.{name}", raw) for name, raw in attributes.items()}


def attributes_json(attributes: Mapping[str, AttributeValue]) -> str | None:
    """Return attributes as they are written to tables, None for none."""
    return json.dumps(attributes, ensure_ascii=False, sort_keys=True) if attributes else None


def parse_attributes(text: str | None) -> dict[str, AttributeValue]:
    """Return the attributes of a table's cell; raises InvalidField for anything else."""
    if not text:
        return {}
    try:
        document = json.loads(text)
    except ValueError as exc:
        raise InvalidField("attributes", text, "must be a JSON object") from exc
    if not isinstance(document, dict):
        raise InvalidField("attributes", text, "must be a JSON object")
    return check_attributes(document)


def _name(name: str) -> str:
    if not 1 <= len(name) <= MAX_ATTRIBUTE_NAME_CHARS:
        fix = f"must have a name of 1 to {MAX_ATTRIBUTE_NAME_CHARS} characters"
        raise InvalidField("attributes", name, fix)
    return name


def _value(field_name: str, raw: object) -> AttributeValue:
    if isinstance(raw, bool):
        return raw
    if isinstance(raw, int | float):
        return _number(field_name, raw)
    if isinstance(raw, str):
        return _text(field_name, raw)
    if isinstance(raw, Sequence) and len(raw) <= MAX_LISTED_VALUES:
        return tuple(_text(field_name, entry) for entry in raw)
    fix = f"must be a text, a number, true, false or a list of at most {MAX_LISTED_VALUES} texts"
    raise InvalidField(field_name, raw, fix)


def _number(field_name: str, raw: float) -> float:
    try:
        number = float(raw)
    except OverflowError as exc:
        raise InvalidField(field_name, raw, "is too large a number") from exc
    if not math.isfinite(number):
        raise InvalidField(field_name, raw, "must be a finite number")
    return number


def _text(field_name: str, raw: object) -> str:
    if not isinstance(raw, str) or len(raw) > MAX_TEXT_ATTRIBUTE_CHARS:
        fix = f"must be a text of at most {MAX_TEXT_ATTRIBUTE_CHARS} characters"
        raise InvalidField(field_name, raw, fix)
    return raw
