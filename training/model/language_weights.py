"""What a body takes from a language model's checkpoint: its shape, and its layers' weights.

Both are read straight from the files, so that no library of language models is needed, and the
words' vectors, which are most of a checkpoint and of no use to a body, are not read at all.
"""

import json
import pickle
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from training.config import TrainingError

CONFIG_FILE = "config.json"
SAFE_FILE = "model.safetensors"
TORCH_FILE = "pytorch_model.bin"
# The vectors of words, by the end of their names.
WORDS = ("word_embeddings.weight", "wte.weight")
# What BERT's first checkpoints call a norm's weight and bias.
OLD_NAMES = {"gamma": "weight", "beta": "bias"}

Read = Callable[[str], Tensor]
Weights = dict[str, Tensor]
Value = TypeVar("Value", int, float, str)


@dataclass(frozen=True, slots=True, kw_only=True)
class LanguageShape:
    """The sizes of a language model's layers, and what they do.

    Layers of the kind `pre_norm` (GPT-2) normalise what a part reads, the others (BERT) what it
    gives, added to what it read. `num_layers` and `num_positions` are what the checkpoint has.
    """

    pre_norm: bool
    hidden_dim: int
    num_heads: int
    feed_dim: int
    num_layers: int
    num_positions: int
    activation: str
    norm_eps: float

    def to_bytes(self) -> Tensor:
        """Return the shape as a tensor of bytes, since a model's state holds tensors alone."""
        return torch.tensor(list(json.dumps(asdict(self)).encode()), dtype=torch.uint8)

    @classmethod
    def from_bytes(cls, written: Tensor) -> "LanguageShape":
        """Return the shape that `to_bytes` wrote."""
        return cls(**json.loads(bytes(written.tolist())))


def read_shape(folder: Path) -> LanguageShape:
    """Return the shape that a checkpoint's config.json states.

    Raises TrainingError for a file that cannot be read and for a network that is not read here.
    """
    try:
        document = json.loads((folder / CONFIG_FILE).read_bytes())
    except (OSError, ValueError) as exc:
        raise TrainingError(f"model.weights: {folder / CONFIG_FILE} cannot be read: {exc}") from exc
    kind = document.get("model_type") if isinstance(document, dict) else None
    if not isinstance(kind, str) or kind not in _KINDS:
        raise TrainingError(
            f"model.weights: {folder} holds a network of the type {kind!r}; a body is made of "
            f"{', '.join(_KINDS)}"
        )
    return _KINDS[kind].shape(_Settings(folder, document))


def read_layers(folder: Path, num_layers: int) -> Weights:
    """Return the first `num_layers` layers and what lies around them, by the body's names.

    `positions.weight` is (num_positions, hidden_dim); matrices are as nn.Linear has them. Raises
    TrainingError for a file that is damaged or has not what its config.json promises.
    """
    document = json.loads((folder / CONFIG_FILE).read_bytes())
    kind = _KINDS[document["model_type"]]
    tensors = _read_tensors(folder)
    prefix = next(
        (name.removesuffix(kind.marker) for name in tensors if name.endswith(kind.marker)), ""
    )

    def read(name: str) -> Tensor:
        if prefix + name not in tensors:
            raise TrainingError(
                f"model.weights: {folder} has no {prefix + name}, which its {CONFIG_FILE} "
                "promises; get the checkpoint anew"
            )
        return tensors[prefix + name].float()

    found = kind.around(read, document)
    for place in range(num_layers):
        layer = kind.layer(read, place)
        found |= {f"layers.{place}.{name}": weight for name, weight in layer.items()}
    return found


@dataclass(frozen=True, slots=True)
class _Settings:
    """A checkpoint's config.json."""

    folder: Path
    document: Mapping[str, Any]

    def __call__(self, name: str, default: Value) -> Value:
        """Return a setting of the default's type; raises TrainingError for one of another."""
        value = self.document.get(name, default)
        if type(value) is not type(default):
            raise TrainingError(
                f"model.weights: {self.folder / CONFIG_FILE}: {name} = {value!r} must be a "
                f"{type(default).__name__}"
            )
        return value

    def require(self, name: str, wanted: object) -> None:
        """Raise TrainingError where a setting is there and says another thing."""
        value = self.document.get(name, wanted)
        if value != wanted:
            raise TrainingError(
                f"model.weights: {self.folder / CONFIG_FILE}: {name} = {value!r} is not read, "
                f"{wanted!r} is; choose another checkpoint"
            )


def _read_tensors(folder: Path) -> Weights:
    found: Weights = {}
    for path in _tensor_files(folder):
        try:
            safe = path.suffix == ".safetensors"
            tensors = _read_safe(path) if safe else torch.load(path, "cpu", weights_only=True)
        except (OSError, RuntimeError, EOFError, ValueError, pickle.UnpicklingError) as exc:
            raise TrainingError(f"model.weights: {path} cannot be read: {exc}") from exc
        found |= {_new_name(name): weight for name, weight in tensors.items()}
    return found


def _tensor_files(folder: Path) -> list[Path]:
    """Return the files that a checkpoint's tensors are in: one, or those that an index names."""
    for name in (SAFE_FILE, TORCH_FILE):
        if (folder / name).is_file():
            return [folder / name]
    for name in (SAFE_FILE, TORCH_FILE):
        index = folder / f"{name}.index.json"
        if index.is_file():
            try:
                names = json.loads(index.read_bytes())["weight_map"].values()
            except (OSError, ValueError, KeyError) as exc:
                raise TrainingError(f"model.weights: {index} cannot be read: {exc!r}") from exc
            return [folder / name for name in sorted(set(names))]
    raise TrainingError(f"model.weights: {folder} has neither {SAFE_FILE} nor {TORCH_FILE}")


def _read_safe(path: Path) -> Weights:
    try:
        from safetensors import SafetensorError, safe_open  # noqa: PLC0415  # of the extra `lm`
    except ImportError as exc:
        raise TrainingError("model.weights needs the extra `lm`: install sojourn[lm]") from exc
    try:
        with safe_open(path, framework="pt") as file:
            names = [name for name in file.keys() if not name.endswith(WORDS)]  # noqa: SIM118  # no mapping
            return {name: file.get_tensor(name) for name in names}
    except SafetensorError as exc:
        raise ValueError(str(exc)) from exc


def _new_name(name: str) -> str:
    head, dot, last = name.rpartition(".")
    return head + dot + OLD_NAMES.get(last, last)


@dataclass(frozen=True, slots=True)
class _Kind:
    """How one kind of checkpoint states its shape and names its tensors.

    `marker` is a tensor of the first layer; before it stands what the name of the whole network is,
    which differs with the head that a checkpoint was saved with.
    """

    marker: str
    shape: Callable[[_Settings], LanguageShape]
    around: Callable[[Read, Mapping[str, Any]], Weights]
    layer: Callable[[Read, int], Weights]


def _bert_shape(get: _Settings) -> LanguageShape:
    get.require("position_embedding_type", "absolute")
    first = _first_position(get.document)
    return LanguageShape(
        pre_norm=False,
        hidden_dim=get("hidden_size", 768),
        num_heads=get("num_attention_heads", 12),
        feed_dim=get("intermediate_size", 3072),
        num_layers=get("num_hidden_layers", 12),
        num_positions=get("max_position_embeddings", 512) - first,
        activation=get("hidden_act", "gelu"),
        norm_eps=get("layer_norm_eps", 1e-12),
    )


def _first_position(document: Mapping[str, Any]) -> int:
    """Return the row of a text's first position: RoBERTa's come after that of padding."""
    return 0 if document["model_type"] == "bert" else document.get("pad_token_id", 1) + 1


def _bert_around(read: Read, document: Mapping[str, Any]) -> Weights:
    positions = read("embeddings.position_embeddings.weight")[_first_position(document) :]
    # Every token of a single text is of the first type.
    types = read("embeddings.token_type_embeddings.weight")[:1]
    return {
        "positions.weight": positions + types,
        **_parts(read, "first_norm", "embeddings.LayerNorm"),
    }


def _bert_layer(read: Read, place: int) -> Weights:
    start = f"encoder.layer.{place}."
    return {
        **_parts(read, "attention.query", start + "attention.self.query"),
        **_parts(
            read,
            "attention.key_value",
            start + "attention.self.key",
            start + "attention.self.value",
        ),
        **_parts(read, "attention.out", start + "attention.output.dense"),
        **_parts(read, "attention_norm", start + "attention.output.LayerNorm"),
        **_parts(read, "feed_in", start + "intermediate.dense"),
        **_parts(read, "feed_out", start + "output.dense"),
        **_parts(read, "feed_norm", start + "output.LayerNorm"),
    }


def _distil_shape(get: _Settings) -> LanguageShape:
    return LanguageShape(
        pre_norm=False,
        hidden_dim=get("dim", 768),
        num_heads=get("n_heads", 12),
        feed_dim=get("hidden_dim", 3072),
        num_layers=get("n_layers", 6),
        num_positions=get("max_position_embeddings", 512),
        activation=get("activation", "gelu"),
        norm_eps=1e-12,
    )


def _distil_around(read: Read, document: Mapping[str, Any]) -> Weights:
    return {
        "positions.weight": read("embeddings.position_embeddings.weight"),
        **_parts(read, "first_norm", "embeddings.LayerNorm"),
    }


def _distil_layer(read: Read, place: int) -> Weights:
    start = f"transformer.layer.{place}."
    return {
        **_parts(read, "attention.query", start + "attention.q_lin"),
        **_parts(read, "attention.key_value", start + "attention.k_lin", start + "attention.v_lin"),
        **_parts(read, "attention.out", start + "attention.out_lin"),
        **_parts(read, "attention_norm", start + "sa_layer_norm"),
        **_parts(read, "feed_in", start + "ffn.lin1"),
        **_parts(read, "feed_out", start + "ffn.lin2"),
        **_parts(read, "feed_norm", start + "output_layer_norm"),
    }


def _gpt_shape(get: _Settings) -> LanguageShape:
    get.require("scale_attn_weights", True)
    get.require("scale_attn_by_inverse_layer_idx", False)
    hidden_dim = get("n_embd", 768)
    stated = get.document.get("n_inner") is not None
    return LanguageShape(
        pre_norm=True,
        hidden_dim=hidden_dim,
        num_heads=get("n_head", 12),
        feed_dim=get("n_inner", 0) if stated else 4 * hidden_dim,
        num_layers=get("n_layer", 12),
        num_positions=get("n_positions", 1024),
        activation=get("activation_function", "gelu_new"),
        norm_eps=get("layer_norm_epsilon", 1e-5),
    )


def _gpt_around(read: Read, document: Mapping[str, Any]) -> Weights:
    return {"positions.weight": read("wpe.weight"), **_parts(read, "final_norm", "ln_f")}


def _gpt_layer(read: Read, place: int) -> Weights:
    """Return a layer whose matrices are stored as (in, out), query, key and value in one."""
    start = f"h.{place}."
    weight, bias = read(start + "attn.c_attn.weight").T, read(start + "attn.c_attn.bias")
    dim = weight.shape[1]
    turned = {
        "attention.out": "attn.c_proj",
        "feed_in": "mlp.c_fc",
        "feed_out": "mlp.c_proj",
    }
    return {
        "attention.query.weight": weight[:dim],
        "attention.query.bias": bias[:dim],
        "attention.key_value.weight": weight[dim:],
        "attention.key_value.bias": bias[dim:],
        **{f"{own}.weight": read(f"{start}{name}.weight").T for own, name in turned.items()},
        **{f"{own}.bias": read(f"{start}{name}.bias") for own, name in turned.items()},
        **_parts(read, "attention_norm", start + "ln_1"),
        **_parts(read, "feed_norm", start + "ln_2"),
    }


def _parts(read: Read, own: str, *names: str) -> Weights:
    """Return weight and bias of one of our modules, made of one or several of theirs."""
    return {
        f"{own}.{part}": torch.cat([read(f"{name}.{part}") for name in names])
        for part in ("weight", "bias")
    }


_BERT = _Kind("encoder.layer.0.attention.self.query.weight", _bert_shape, _bert_around, _bert_layer)
_KINDS: Mapping[str, _Kind] = {
    "bert": _BERT,
    "roberta": _BERT,
    "xlm-roberta": _BERT,
    "camembert": _BERT,
    "distilbert": _Kind(
        "transformer.layer.0.attention.q_lin.weight", _distil_shape, _distil_around, _distil_layer
    ),
    "gpt2": _Kind("h.0.attn.c_attn.weight", _gpt_shape, _gpt_around, _gpt_layer),
}
