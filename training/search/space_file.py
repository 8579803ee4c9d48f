"""The file of a search's space, read and checked before anything trains.

A space maps settings to lists of choices or to ranges::

    [optim]
    learning_rate = { low = 1e-4, high = 1e-2, log = true }

    [model]
    num_blocks = { low = 1, high = 4 }
    dropout = { low = 0.0, high = 0.5, step = 0.1 }
    family = ["ligr", "sasrec"]
"""

import math
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from training.config import RunConfig, TrainingError
from training.search.space import (
    ROUNDING,
    Axis,
    Choices,
    Range,
    Scalar,
    Values,
    num_steps,
    overrides,
    step_value,
)

# Returns the run's settings with `section.key=value` texts over them, or raises TrainingError.
Settings: TypeAlias = Callable[[Sequence[str]], RunConfig]

RANGE_KEYS = ("low", "high", "log", "step")
# What may not vary, since trials are compared by one score on the same cases.
FIXED = {
    "split": "the trials would be measured on different cases",
    "loop.max_validation_users": "the trials would be measured on different cases",
    "loop.seed": "the best seed is luck; train the best settings with several",
    "model.tasks": "the trials would be measured by different scores",
    "model.request_time": "a known and an unknown request time are two tasks",
    "pretrain.objective": "the trials would be measured by different scores",
}


def read_space(path: Path, settings: Settings, given: Sequence[str] = ()) -> tuple[Axis, ...]:
    """Read a space; raises TrainingError naming the setting, the value and the way out.

    `settings` builds the run's settings, `given` are its `--set` texts, which may not vary too.
    """
    taken = {text.partition("=")[0] for text in given}
    axes = tuple(_axis(f"{path}: ", name, body) for name, body in _entries(path))
    if not axes:
        raise TrainingError(f"{path}: no setting varies; name one, as in model.dim = [32, 64]")
    for axis in axes:
        if axis.name in taken:
            raise TrainingError(f"{path}: {axis.name} is set by --set too; drop one of the two")
        _refuse_fixed(path, axis.name)
    return tuple(_typed(path, axis, axes, settings) for axis in axes)


def _entries(path: Path) -> list[tuple[str, Any]]:
    """Return (section.key, list or range) of a space file."""
    try:
        document = tomllib.loads(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as exc:
        raise TrainingError(f"{path}: the space cannot be read: {exc}") from exc
    found = []
    for section, body in document.items():
        if not isinstance(body, dict) or "." in section:
            raise TrainingError(
                f"{path}: {section!r} is no section; write section.key = … without quotes"
            )
        found += [(f"{section}.{key}", value) for key, value in body.items()]
    return found


def _axis(where: str, name: str, body: Any) -> Axis:
    if isinstance(body, list):
        return _choices(where, name, body)
    if isinstance(body, dict):
        return _range(where, name, body)
    raise TrainingError(
        f"{where}{name} = {body!r} does not vary; write a list of choices or "
        "{ low = …, high = … }, or give it with --set"
    )


def _choices(where: str, name: str, values: list[Any]) -> Choices:
    if not values or len({(type(value), str(value)) for value in values}) < len(values):
        raise TrainingError(f"{where}{name} = {values!r} must list each choice once")
    for value in values:
        if not isinstance(value, bool | int | float | str):
            raise TrainingError(f"{where}{name}: choice {value!r} must be a single value")
    return Choices(name, tuple(values))


def _range(where: str, name: str, body: dict[str, Any]) -> Range:
    where = f"{where}{name}"
    unknown = sorted(set(body) - set(RANGE_KEYS))
    if unknown:
        known = ", ".join(RANGE_KEYS)
        raise TrainingError(f"{where}: {unknown[0]!r} is not part of a range; there are {known}")
    for key in ("low", "high", "step"):
        if key in body and not _is_number(body[key]):
            raise TrainingError(f"{where}: {key} = {body[key]!r} must be a finite number")
        if key not in body and key != "step":
            raise TrainingError(f"{where}: {key} is missing; a range needs low and high")
    if not isinstance(body.get("log", False), bool):
        raise TrainingError(f"{where}: log = {body['log']!r} must be true or false")
    found = Range(name, body["low"], body["high"], body.get("log", False), body.get("step"))
    _check_bounds(where, found)
    return found


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _check_bounds(where: str, found: Range) -> None:
    low, high, step = found.low, found.high, found.step
    if not low < high:
        raise TrainingError(f"{where}: low = {low!r} must be below high = {high!r}")
    if found.log and step is not None:
        raise TrainingError(f"{where}: log and step exclude each other; drop one")
    if found.log and low <= 0:
        raise TrainingError(f"{where}: low = {low!r} must be above 0 with log = true")
    if step is None:
        return
    if not 0 < step <= high - low:
        raise TrainingError(f"{where}: step = {step!r} must be above 0 and at most high - low")
    last = step_value(found, num_steps(found))
    if abs(last - high) > ROUNDING * abs(high):
        raise TrainingError(
            f"{where}: high = {high!r} is not reached from low = {low!r} in steps of {step!r}; "
            f"write high = {last!r}"
        )


def _refuse_fixed(path: Path, name: str) -> None:
    reason = FIXED.get(name, FIXED.get(name.partition(".")[0]))
    if reason is not None:
        raise TrainingError(f"{path}: {name} cannot vary in a search: {reason}")


def _typed(path: Path, axis: Axis, axes: Sequence[Axis], settings: Settings) -> Axis:
    """Return the axis with its numbers in the setting's type, after trying its values."""
    others = [other for other in axes if other.name != axis.name]
    contexts: list[Values] = [{}, *({o.name: value} for o in others for value in _ends(o))]
    kinds = {_kind(path, {axis.name: value}, contexts, settings) for value in _ends(axis)}
    if isinstance(axis, Choices):
        return axis
    numbers = [axis.low, axis.high, *([] if axis.step is None else [axis.step])]
    if kinds == {float}:
        low, high, *step = (float(number) for number in numbers)
        return Range(axis.name, low, high, axis.log, *step)
    if kinds != {int} or not all(isinstance(number, int) for number in numbers):
        raise TrainingError(f"{path}: {axis.name}: step = {axis.step!r} must be a whole number")
    return axis


def _ends(axis: Axis) -> tuple[Scalar, ...]:
    return axis.values if isinstance(axis, Choices) else (axis.low, axis.high)


def _kind(path: Path, value: Values, contexts: Sequence[Values], settings: Settings) -> type:
    """Return the type of a setting once it has a value that the settings take.

    One other setting may take another of its own values: a family has its own settings, and some
    only fit together. Raises the error of the plain settings when nothing fits.
    """
    refusals = []
    ((name, _),) = value.items()
    for context in contexts:
        try:
            config = settings(overrides({**context, **value}))
        except TrainingError as exc:
            refusals.append(exc)
            continue
        section, _, key = name.partition(".")
        return type(getattr(getattr(config, section), key))
    raise TrainingError(f"{path}: {refusals[0]}") from refusals[0]
