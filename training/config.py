"""Settings of every training stage: frozen, strict, saved with each run.

A run's settings are one TOML document; a preset is such a document that ships with the package,
`--config FILE` lays another over it and `--set section.key=value` single values.
"""

import dataclasses
import math
import tomllib
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, Literal, TypeVar

Protocol = Literal["leave-one-out", "temporal"]
RequestTime = Literal["known", "unknown"]


class TrainingError(Exception):
    """What a person can mend: shown as one line, without a traceback."""


@dataclass(frozen=True, slots=True)
class SplitConfig:
    """How events become train, validation and test.

    `validation_from` and `test_from` are the shares of all events before the two instants of the
    temporal split; leave-one-out does not use them.
    """

    protocol: Protocol = "leave-one-out"
    validation_from: float = 0.8
    test_from: float = 0.9


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """The network's shape.

    `time_gaps` adds the attention bias from log-bucketed gaps, `request_time` says whether the
    query knows the time of the request (hour, weekday, gap since the last event).
    """

    family: Literal["ligr"] = "ligr"
    dim: int = 64
    num_blocks: int = 2
    num_heads: int = 2
    hidden_dim: int = 192
    window_len: int = 200
    dropout: float = 0.2
    time_gaps: bool = True
    request_time: RequestTime = "known"
    temperature: float = 0.05


@dataclass(frozen=True, slots=True)
class OptimConfig:
    """The optimiser and its schedule; `warmup_steps` rise linearly, then the rate is constant."""

    name: Literal["adam", "adamw"] = "adam"
    learning_rate: float = 1e-3
    beta1: float = 0.9
    beta2: float = 0.98
    weight_decay: float = 0.0
    warmup_steps: int = 50
    clip_norm: float = 1.0


@dataclass(frozen=True, slots=True)
class LoopConfig:
    """The training loop; `patience` counts validations without a better NDCG@10."""

    batch_size: int = 128
    max_epochs: int = 100
    patience: int = 5
    max_validation_users: int = 20_000
    max_minutes: float = 0.0
    seed: int = 1
    num_threads: int = 0


@dataclass(frozen=True, slots=True)
class RunConfig:
    """Everything that makes a run what it is; raises TrainingError for values out of range."""

    split: SplitConfig = field(default_factory=SplitConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    loop: LoopConfig = field(default_factory=LoopConfig)

    def __post_init__(self) -> None:
        for section, name, least in _LEAST:
            value = getattr(getattr(self, section), name)
            if not (math.isfinite(value) and value >= least):
                raise TrainingError(f"{section}.{name} = {value!r} must be at least {least}")
        model = self.model
        if model.dim % model.num_heads:
            raise TrainingError(
                f"model.dim = {model.dim} must be a multiple of model.num_heads = {model.num_heads}"
            )
        if not 0 <= model.dropout < 1:
            raise TrainingError(f"model.dropout = {model.dropout!r} must be in [0, 1)")
        if not model.temperature > 0:
            raise TrainingError(f"model.temperature = {model.temperature!r} must be above 0")


# The least value of each number that has one.
_LEAST: tuple[tuple[str, str, int], ...] = (
    ("model", "dim", 1),
    ("model", "num_blocks", 1),
    ("model", "num_heads", 1),
    ("model", "hidden_dim", 1),
    ("model", "window_len", 1),
    ("optim", "learning_rate", 0),
    ("optim", "weight_decay", 0),
    ("optim", "warmup_steps", 0),
    ("optim", "clip_norm", 0),
    ("loop", "batch_size", 1),
    ("loop", "max_epochs", 1),
    ("loop", "patience", 1),
    ("loop", "max_validation_users", 1),
    ("loop", "max_minutes", 0),
    ("loop", "seed", 0),
    ("loop", "num_threads", 0),
)


Config = TypeVar("Config")


def preset_names() -> list[str]:
    """Return the names of the presets that ship with the package."""
    folder = resources.files("training") / "presets"
    return sorted(entry.name.removesuffix(".toml") for entry in folder.iterdir())


def load_run_config(
    preset: str = "base", config_file: Path | None = None, overrides: Sequence[str] = ()
) -> RunConfig:
    """Return the settings of a run; raises TrainingError naming what is unknown or wrong."""
    if preset not in preset_names():
        raise TrainingError(f"preset {preset!r} is unknown; there are {', '.join(preset_names())}")
    text = (resources.files("training") / "presets" / f"{preset}.toml").read_text("utf-8")
    document = tomllib.loads(text)
    if config_file is not None:
        document = _merge(document, _read_toml(config_file))
    for override in overrides:
        document = _merge(document, _parse_override(override))
    return config_from_dict(RunConfig, document)


def config_from_dict(kind: type[Config], document: Mapping[str, Any], where: str = "") -> Config:
    """Build a frozen config from plain values; unknown names and wrong types are refused."""
    hints = typing.get_type_hints(kind)
    unknown = sorted(set(document) - set(hints))
    if unknown:
        known = ", ".join(sorted(hints))
        raise TrainingError(f"{where}{unknown[0]} is not a setting; there are {known}")
    values = {
        name: _convert(hints[name], value, f"{where}{name}") for name, value in document.items()
    }
    return kind(**values)


def config_to_dict(config: Any) -> dict[str, Any]:
    """Return a config as nested plain values, for TOML, JSON and checkpoints."""
    return dataclasses.asdict(config)


def _convert(hint: Any, value: Any, where: str) -> Any:
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        if not isinstance(value, Mapping):
            raise TrainingError(f"{where} is a section, not a value")
        return config_from_dict(hint, value, f"{where}.")
    if typing.get_origin(hint) is Literal:
        allowed = typing.get_args(hint)
        if value not in allowed:
            names = ", ".join(str(option) for option in allowed)
            raise TrainingError(f"{where} = {value!r} must be one of {names}")
        return value
    if isinstance(hint, types.UnionType):
        hint = next(part for part in typing.get_args(hint) if part is not type(None))
    if hint is float and type(value) is int:
        return float(value)
    if type(value) is not hint:
        raise TrainingError(f"{where} = {value!r} must be a {hint.__name__}")
    return value


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except OSError as exc:
        raise TrainingError(f"{path}: cannot be read: {exc.strerror}") from exc
    except tomllib.TOMLDecodeError as exc:
        raise TrainingError(f"{path}: not valid TOML: {exc}") from exc


def _parse_override(text: str) -> dict[str, Any]:
    name, equals, value = text.partition("=")
    section, dot, key = name.partition(".")
    if not (equals and dot and key):
        raise TrainingError(f"--set {text!r} must look like section.key=value")
    try:
        parsed = tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        parsed = value
    return {section: {key: parsed}}


def _merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for name, value in above.items():
        old = merged.get(name)
        both = isinstance(old, Mapping) and isinstance(value, Mapping)
        merged[name] = _merge(old, value) if both else value  # type: ignore[arg-type]  # both are mappings here
    return merged
