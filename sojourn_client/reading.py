"""JSON to frozen dataclasses: what is unknown is ignored, what is missing or wrong is an error."""

import dataclasses
import functools
import types
from collections.abc import Hashable, Mapping
from typing import Any, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from sojourn_client.errors import BadAnswer

T = TypeVar("T")


def read(kind: type[T], document: object, where: str = "the answer") -> T:
    """Return a dataclass from a JSON object.

    Fields that the class does not have are a newer service's and are left out; a field of the class
    that the object does not have takes its default. Raises BadAnswer.
    """
    if not isinstance(document, Mapping):
        raise BadAnswer(f"{where} should be an object and is {_named(document)}")
    found = {}
    for name, hint, has_default in _fields(cast("Hashable", kind)):
        if name in document:
            found[name] = _value(hint, document[name], f"{where}.{name}")
        elif not has_default:
            raise BadAnswer(f"{where} has no {name}")
    return kind(**found)


@functools.cache
def _fields(kind: Hashable) -> tuple[tuple[str, Any, bool], ...]:
    """Return each field's name and type, and whether it has a default."""
    hints = get_type_hints(kind)
    missing = dataclasses.MISSING
    return tuple(
        (
            field.name,
            hints[field.name],
            field.default is not missing or field.default_factory is not missing,
        )
        for field in dataclasses.fields(cast("type[Any]", kind))
    )


def _value(hint: Any, value: object, where: str) -> object:
    if hint is Any:
        return value
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        return _optional(hint, value, where)
    if origin is tuple:
        return _tuple(hint, value, where)
    if origin is not None and issubclass(origin, Mapping):
        return _mapping(hint, value, where)
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return read(hint, value, where)
    return _plain(hint, value, where)


def _optional(hint: Any, value: object, where: str) -> object:
    """Return a value of `X | None`; no other unions are answers."""
    if value is None:
        return None
    [kind] = [one for one in get_args(hint) if one is not type(None)]
    return _value(kind, value, where)


def _tuple(hint: Any, value: object, where: str) -> tuple[object, ...]:
    """Return a value of `tuple[X, ...]` from a JSON array."""
    if not isinstance(value, list):
        raise BadAnswer(f"{where} should be an array and is {_named(value)}")
    kind = get_args(hint)[0]
    return tuple(_value(kind, one, f"{where}.{place}") for place, one in enumerate(value))


def _mapping(hint: Any, value: object, where: str) -> dict[str, object]:
    """Return a value of `Mapping[str, X]` from a JSON object."""
    if not isinstance(value, Mapping):
        raise BadAnswer(f"{where} should be an object and is {_named(value)}")
    kind = get_args(hint)[1]
    return {name: _value(kind, one, f"{where}.{name}") for name, one in value.items()}


def _plain(hint: Any, value: object, where: str) -> object:
    """Return a text, number or truth; JSON's `1` is a float too, and `true` is no number."""
    if hint is float and type(value) is int:
        return float(value)
    if type(value) is not hint:
        raise BadAnswer(f"{where} should be of type {hint.__name__} and is {_named(value)}")
    return value


def _named(value: object) -> str:
    return f"{str(value)[:40]!r} ({type(value).__name__})"
