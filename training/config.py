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

from training.config_ranges import LEAST, RANGES
from training.model_config import FAMILIES, LanguageModelConfig, ModelConfig, TransformerConfig

TextPolicy = Literal["frozen", "head", "last-n", "full", "lora", "adalora", "prefix", "adapter"]
# Those under which the language model stays as it is: texts are read once.
READ_ONCE: tuple[TextPolicy, ...] = ("frozen", "head")
SubstituteSource = Literal["cooccurrence", "text", "both"]
Protocol = Literal["leave-one-out", "temporal", "trajectory"]


class TrainingError(Exception):
    """What a person can mend: shown as one line, without a traceback."""


@dataclass(frozen=True, slots=True)
class SplitConfig:
    """How events become train, validation and test.

    `validation_from` and `test_from` are the shares of all events before the two instants of the
    temporal and trajectory splits; leave-one-out does not use them. `session_hours` is the longest
    session of the trajectory split, whose cases are the last events. `train_share` keeps the
    training events of that share of the users only, drawn with the run's seed.
    """

    protocol: Protocol = "leave-one-out"
    validation_from: float = 0.8
    test_from: float = 0.9
    session_hours: float = 24.0
    train_share: float = 1.0


@dataclass(frozen=True, slots=True)
class LossConfig:
    """The next-item loss and the weights of the tasks.

    `full` is cross-entropy over all items; `sampled` over the target and `num_negatives` that the
    whole batch shares, drawn by `sampler`, with logQ correction; `bce` and `gbce` take
    `num_negatives` for each position, `gbce` calibrated by `gbce_t` (Petrov & Macdonald, 2023).
    """

    name: Literal["full", "sampled", "bce", "gbce"] = "full"
    num_negatives: int = 256
    sampler: Literal["uniform", "popularity"] = "uniform"
    gbce_t: float = 0.75
    label_smoothing: float = 0.0
    next_item_weight: float = 1.0
    click_weight: float = 1.0
    watch_weight: float = 1.0


@dataclass(frozen=True, slots=True)
class OptimConfig:
    """The optimiser and its schedule.

    `warmup_steps` rise linearly; then the rate is constant, or falls as a cosine over
    `loop.max_epochs` to `final_rate` times `learning_rate`. Weight decay spares biases, norms and
    embeddings. `ema_decay` keeps an exponential average of the weights, which is what is validated
    and exported; 0 is off.
    """

    name: Literal["adam", "adamw", "sgd"] = "adam"
    learning_rate: float = 1e-3
    beta1: float = 0.9
    beta2: float = 0.98
    momentum: float = 0.9
    weight_decay: float = 0.0
    warmup_steps: int = 50
    schedule: Literal["constant", "cosine"] = "constant"
    final_rate: float = 0.05
    clip_norm: float = 1.0
    ema_decay: float = 0.0


@dataclass(frozen=True, slots=True)
class PretrainConfig:
    """Self-supervision, and how a pre-trained model is tuned.

    `objective` is what a run learns by: `next-item` and the other heads, `masked` events filled in
    from both sides, or `contrastive` views of one sequence that find each other. `init_from` is a
    run whose best weights start this one; `freeze` says which of them learn: all (`none`), heads
    and output (`head-only`), those and the `unfrozen_layers` last layers (`last-n`), or one layer
    more every `stage_epochs` epochs from the last down (`gradual`). Views substitute items by what
    `substitutes` names: items of the same users in order, or of similar words.
    """

    objective: Literal["next-item", "masked", "contrastive"] = "next-item"
    mask_share: float = 0.2
    crop_share: float = 0.6
    reorder_share: float = 0.2
    substitute_share: float = 0.2
    substitutes: SubstituteSource = "cooccurrence"
    contrastive_temperature: float = 0.1
    init_from: str = ""
    freeze: Literal["none", "head-only", "last-n", "gradual"] = "none"
    unfrozen_layers: int = 1
    stage_epochs: int = 2


@dataclass(frozen=True, slots=True)
class LoopConfig:
    """The training loop; `patience` counts validations without a better validation score.

    A batch holds `batch_size` sequences, or with `batch_tokens` above 0 as many of similar length
    as have so many positions, padding included. `shift_windows` cuts histories longer than the
    window elsewhere every epoch. `num_threads` 0 leaves torch its default.
    """

    batch_size: int = 128
    batch_tokens: int = 0
    shift_windows: bool = True
    max_epochs: int = 100
    patience: int = 5
    max_validation_users: int = 20_000
    max_minutes: float = 0.0
    seed: int = 1
    num_threads: int = 0
    precision: Literal["float32", "bfloat16"] = "float32"
    compile: bool = False


@dataclass(frozen=True, slots=True)
class TextConfig:
    """Items as a language model reads them: title, text and categories become part of the vector.

    `weights` is a folder with a checkpoint, `package:NAME` for one inside an installed package, or
    the name of one on a hub; "" reads no text. `pooling` makes one vector of a text's tokens: their
    mean, the first, the last, or what suits the kind of network (`auto`). Pooled vectors are
    whitened over the items and projected into the item vector.
    `policy` says what of that learns by the next-item loss: nothing (`frozen`), the projection
    (`head`), with it the `last_layers` last layers (`last-n`), the whole network (`full`), or what
    is put into it: low-rank updates of `rank` (`lora`, `adalora`), `num_prefix` keys and values
    before each layer's own (`prefix`), bottlenecks `adapter_dim` wide behind each layer
    (`adapter`). Where more than the projection learns, each step reads `texts_per_step` of the
    batch's items anew, the others' vectors are the ones of the epoch's start; `learning_rate` is
    that of the network.
    `id_dropout` is the share of items that are without their identity for a step, so that a text
    alone scores well; `word_dropout` and `synonym_share` are of the words of a text read anew.
    Synonyms are neighbours among the network's own word vectors or WordNet's; `translate_share` of
    the texts read anew are translated there and back, by Marian checkpoints in two folders.
    """

    weights: str = ""
    pooling: Literal["auto", "mean", "first", "last"] = "auto"
    max_tokens: int = 64
    policy: TextPolicy = "head"
    last_layers: int = 2
    rank: int = 8
    num_prefix: int = 16
    adapter_dim: int = 32
    texts_per_step: int = 32
    learning_rate: float = 1e-4
    id_dropout: float = 0.2
    word_dropout: float = 0.0
    synonym_share: float = 0.0
    synonyms: Literal["embedding", "wordnet"] = "embedding"
    translate_share: float = 0.0
    translate_forward: str = ""
    translate_back: str = ""


@dataclass(frozen=True, slots=True)
class RunConfig:
    """Everything that makes a run what it is; raises TrainingError for values out of range."""

    split: SplitConfig = field(default_factory=SplitConfig)
    model: ModelConfig = field(default_factory=TransformerConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    pretrain: PretrainConfig = field(default_factory=PretrainConfig)
    text: TextConfig = field(default_factory=TextConfig)
    loop: LoopConfig = field(default_factory=LoopConfig)

    def __post_init__(self) -> None:
        _check_ranges(self)
        _check_model(self.model)
        _check_text(self.text)


def _check_ranges(config: RunConfig) -> None:
    for section, name, least in LEAST:
        value = getattr(getattr(config, section), name, least)
        if not (math.isfinite(value) and value >= least):
            raise TrainingError(f"{section}.{name} = {value!r} must be at least {least}")
    for names, fits, range_ in RANGES:
        for section, name in names:
            value = getattr(getattr(config, section), name, None)
            if value is not None and not fits(value):
                raise TrainingError(f"{section}.{name} = {value!r} must be {range_}")


def _check_text(text: TextConfig) -> None:
    """Raise TrainingError for what has no effect where texts are read once."""
    if text.policy not in READ_ONCE:
        return
    for name in ("word_dropout", "synonym_share", "translate_share"):
        share = getattr(text, name)
        if share:
            raise TrainingError(
                f"text.{name} = {share} changes texts that are read anew, which is never with "
                f"text.policy = {text.policy!r}; choose another policy, or 0"
            )


def _check_model(model: ModelConfig) -> None:
    _check_blocks(model)
    heads = getattr(model, "num_heads", 1)
    if model.dim % heads:
        raise TrainingError(
            f"model.dim = {model.dim} must be a multiple of model.num_heads = {heads}"
        )
    if getattr(model, "positions", "") == "rotary" and model.dim // heads % 2:
        raise TrainingError(
            f"model.dim = {model.dim} over model.num_heads = {heads} must be even for "
            "model.positions = 'rotary'"
        )
    copy_heads = model.copy_heads if model.copy else 0
    if copy_heads and model.dim % copy_heads:
        raise TrainingError(
            f"model.dim = {model.dim} must be a multiple of model.copy_heads = {copy_heads}"
        )
    if getattr(model, "distances", False) and not model.places:
        raise TrainingError("model.distances = true needs model.places = true")
    if not model.tasks or len(set(model.tasks)) < len(model.tasks):
        raise TrainingError(f"model.tasks = {list(model.tasks)} must name each task once")


def _check_blocks(model: ModelConfig) -> None:
    language = isinstance(model, LanguageModelConfig)
    # To a language model 0 means all of its layers.
    num_blocks, least = getattr(model, "num_blocks", 1), 0 if language else 1
    if num_blocks < least:
        raise TrainingError(f"model.num_blocks = {num_blocks} must be at least {least}")
    if isinstance(model, LanguageModelConfig) and not model.weights:
        raise TrainingError(
            "model.family = 'lm' needs model.weights: a folder with a checkpoint, "
            "package:NAME for one inside an installed package, or a hub's name"
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
    layers = [tomllib.loads(text)]
    if config_file is not None:
        layers.append(_read_toml(config_file))
    layers += [_parse_override(override) for override in overrides]
    document = layers[0]
    for layer in layers[1:]:
        document = _merge(_without_strangers(document, layer), layer)
    return config_from_dict(RunConfig, document)


def _without_strangers(below: dict[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Drop from `below` the model settings that the family named in `above` does not have."""
    model = above.get("model")
    named = str(model.get("family")) if isinstance(model, Mapping) else ""
    if named not in FAMILIES or not isinstance(below.get("model"), Mapping):
        return below
    known = {entry.name for entry in dataclasses.fields(FAMILIES[named])}
    kept = {name: value for name, value in below["model"].items() if name in known}
    return below | {"model": kept}


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
        kind = _family(value) if hint is ModelConfig else hint
        return config_from_dict(kind, value, f"{where}.")
    if typing.get_origin(hint) is Literal:
        return _one_of(typing.get_args(hint), value, where)
    if typing.get_origin(hint) is tuple:
        return _tuple(typing.get_args(hint)[0], value, where)
    if isinstance(hint, types.UnionType):
        hint = next(part for part in typing.get_args(hint) if part is not type(None))
    if hint is float and type(value) is int:
        return float(value)
    if type(value) is not hint:
        raise TrainingError(f"{where} = {value!r} must be a {hint.__name__}")
    return value


def _family(document: Mapping[str, Any]) -> type[ModelConfig]:
    """Return the settings class of the family that a model section names."""
    named = _one_of(tuple(FAMILIES), document.get("family", "ligr"), "model.family")
    return FAMILIES[str(named)]


def _one_of(allowed: Sequence[Any], value: Any, where: str) -> Any:
    if value not in allowed:
        names = ", ".join(str(option) for option in allowed)
        raise TrainingError(f"{where} = {value!r} must be one of {names}")
    return value


def _tuple(hint: Any, value: Any, where: str) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple):
        raise TrainingError(f"{where} = {value!r} must be a list")
    return tuple(_convert(hint, part, where) for part in value)


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except OSError as exc:
        raise TrainingError(f"{path}: cannot be read: {exc.strerror}") from exc
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as exc:
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
