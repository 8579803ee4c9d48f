"""The settings of every model family: one frozen dataclass each, found by `model.family`."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

RequestTime = Literal["known", "unknown"]
Task = Literal["next-item", "click", "watch"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """What all families share.

    Inputs: `request_time` says whether the query knows when the request is made (hour, weekday,
    gap since the last event); `event_types`, `durations` and `values` join an event's type, dwell
    and rating to its vector; `categories` and `places` join an item's categories, place cell and
    coordinates to the item's vector, and `places` the distance from the last event to the query.
    Output: `normalised` vectors with a learned `temperature`, or plain inner products with a bias
    per item. `copy` adds the bonus for items of the user's own history, with `copy_heads` 0 one
    number for all of them.
    `tasks` are the heads that are trained, the first is the one that is served.
    """

    family: str
    dim: int = 64
    window_len: int = 200
    dropout: float = 0.2
    request_time: RequestTime = "unknown"
    event_types: bool = False
    durations: bool = False
    values: bool = False
    categories: bool = False
    places: bool = False
    copy: bool = False
    copy_heads: int = 4
    normalised: bool = True
    temperature: float = 0.05
    tasks: tuple[Task, ...] = ("next-item",)


@dataclass(frozen=True, slots=True, kw_only=True)
class TransformerConfig(ModelConfig):
    """The default: causal blocks, `ligr` (gated attention and SwiGLU) or `hstu`.

    `positions` are vectors by place in the window (`absolute`), or rotations of attention's queries
    and keys by which only distances count (`rotary`).
    `time_gaps` adds the attention bias from log-bucketed time gaps, `distances` one from
    log-bucketed distances; `emb_dropout` is the dropout of the input, `dropout` of the branches.
    """

    family: Literal["ligr"] = "ligr"
    block: Literal["ligr", "hstu"] = "ligr"
    num_blocks: int = 2
    num_heads: int = 2
    hidden_dim: int = 192
    positions: Literal["absolute", "rotary"] = "rotary"
    time_gaps: bool = True
    distances: bool = False
    emb_dropout: float = 0.2
    request_time: RequestTime = "known"


@dataclass(frozen=True, slots=True, kw_only=True)
class SasrecConfig(ModelConfig):
    """SASRec (Kang & McAuley, 2018): causal attention, position-wise ReLU, plain inner products."""

    family: Literal["sasrec"] = "sasrec"
    num_blocks: int = 2
    num_heads: int = 2
    normalised: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Bert4RecConfig(ModelConfig):
    """BERT4Rec (Sun et al., 2019): attention both ways, trained to fill masked events.

    Serving appends a mask after the newest event and reads the item there.
    """

    family: Literal["bert4rec"] = "bert4rec"
    num_blocks: int = 2
    num_heads: int = 2
    normalised: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RecurrentConfig(ModelConfig):
    """A recurrent network; GRU4Rec (Hidasi et al., 2016) is the `gru` with one layer."""

    family: Literal["gru", "lstm", "rnn"] = "gru"
    hidden_dim: int = 64
    depth: int = 1
    normalised: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class LanguageModelConfig(ModelConfig):
    """A language model's layers, which read items instead of words.

    `weights` names a checkpoint as `text.weights` does; how wide its layers are, their heads and
    the rest of their shape is the checkpoint's. The first `num_blocks` layers are taken, all of
    them with 0, with what they have learned (`weights`) or, to compare, without it (`scratch`).
    `positions` are the checkpoint's vectors, counted from the first event (`weights`), or those of
    the default family (`absolute`); `time_gaps` is the default family's too.
    """

    family: Literal["lm"] = "lm"
    weights: str = ""
    num_blocks: int = 2
    start: Literal["weights", "scratch"] = "weights"
    positions: Literal["weights", "absolute"] = "weights"
    time_gaps: bool = False


FAMILIES: Mapping[str, type[ModelConfig]] = {
    "ligr": TransformerConfig,
    "sasrec": SasrecConfig,
    "bert4rec": Bert4RecConfig,
    "gru": RecurrentConfig,
    "lstm": RecurrentConfig,
    "rnn": RecurrentConfig,
    "lm": LanguageModelConfig,
}
