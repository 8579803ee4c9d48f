"""The space of a search: settings and what they vary over, as values and as TOML."""

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from training.config import TrainingError

Scalar: TypeAlias = bool | int | float | str
Values: TypeAlias = Mapping[str, Scalar]
# Quotients of decimal fractions miss whole numbers by their last bits.
ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class Choices:
    """A setting that takes one of a few values."""

    name: str
    values: tuple[Scalar, ...]


@dataclass(frozen=True, slots=True)
class Range:
    """A number between two bounds, both included; whole when `low` is an int.

    With a `step` it takes low, low + step and so on; with `log` small values are as likely as
    large ones. It has at most one of the two.
    """

    name: str
    low: float
    high: float
    log: bool = False
    step: float | None = None


Axis: TypeAlias = Choices | Range


def grid(axes: Sequence[Axis]) -> list[Values]:
    """Return every combination, the last setting varying fastest.

    Raises TrainingError for a range that has no finite number of values.

    >>> grid([Choices("model.dim", (32, 64))])
    [{'model.dim': 32}, {'model.dim': 64}]
    """
    values = [_grid_values(axis) for axis in axes]
    names = [axis.name for axis in axes]
    return [
        dict(zip(names, combination, strict=True)) for combination in itertools.product(*values)
    ]


def overrides(values: Values) -> list[str]:
    """Return values as `section.key=value` texts, the model's family first.

    >>> overrides({"model.dim": 32, "model.family": "gru"})
    ['model.family="gru"', 'model.dim=32']
    """
    # A family brings its own settings, so it has to be known before them.
    ordered = sorted(values.items(), key=lambda pair: pair[0] != "model.family")
    return [f"{name}={toml_value(value)}" for name, value in ordered]


def toml_value(value: Any) -> str:
    """Return a value as TOML.

    >>> toml_value(("a", True, 1e-05))
    '["a", true, 1e-05]'
    """
    if isinstance(value, list | tuple):
        return f"[{', '.join(toml_value(part) for part in value)}]"
    # A JSON string without escapes beyond TOML's is a TOML basic string.
    return json.dumps(value, ensure_ascii=False) if isinstance(value, bool | str) else repr(value)


def toml_document(sections: Mapping[str, Mapping[str, Any]]) -> str:
    """Return sections of plain values as a TOML document."""
    lines = []
    for section, entries in sections.items():
        lines += [
            f"[{section}]",
            *(f"{name} = {toml_value(entries[name])}" for name in entries),
            "",
        ]
    return "\n".join(lines)


def num_steps(axis: Range) -> int:
    """Return how many whole steps fit between the bounds; a whole range without a step has 1s."""
    return int((axis.high - axis.low) / (axis.step or 1) + ROUNDING)


def step_value(axis: Range, place: int) -> float:
    """Return the value after `place` steps, without the last bits that adding leaves.

    >>> step_value(Range("model.dropout", 0.0, 0.3, step=0.1), 3)
    0.3
    """
    value: float = tidy(axis.low + place * (axis.step or 1))
    return value


def tidy(value: Scalar) -> Any:
    """Return a value with a float's last bits dropped: 0.30000000000000004 is 0.3."""
    return float(f"{value:.12g}") if isinstance(value, float) else value


def _grid_values(axis: Axis) -> Sequence[Scalar]:
    if isinstance(axis, Choices):
        return axis.values
    if axis.log or (axis.step is None and isinstance(axis.low, float)):
        raise TrainingError(
            f"{axis.name}: a grid needs a list of values, or a range with a step and without log"
        )
    return [step_value(axis, place) for place in range(num_steps(axis) + 1)]
