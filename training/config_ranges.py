"""The ranges of settings: what a number may be, by its section and name."""

import math
from collections.abc import Callable, Sequence

# The least value of each number that has one.
LEAST: tuple[tuple[str, str, int], ...] = (
    ("model", "dim", 1),
    ("model", "num_heads", 1),
    ("model", "hidden_dim", 1),
    ("model", "depth", 1),
    ("model", "window_len", 1),
    ("model", "copy_heads", 0),
    ("loss", "num_negatives", 1),
    ("loss", "next_item_weight", 0),
    ("loss", "click_weight", 0),
    ("loss", "watch_weight", 0),
    ("optim", "learning_rate", 0),
    ("optim", "weight_decay", 0),
    ("optim", "warmup_steps", 0),
    ("optim", "clip_norm", 0),
    ("pretrain", "unfrozen_layers", 0),
    ("pretrain", "stage_epochs", 1),
    ("text", "max_tokens", 3),
    ("text", "last_layers", 1),
    ("text", "rank", 1),
    ("text", "num_prefix", 1),
    ("text", "adapter_dim", 1),
    ("text", "texts_per_step", 1),
    ("text", "learning_rate", 0),
    ("loop", "batch_size", 1),
    ("loop", "batch_tokens", 0),
    ("loop", "max_epochs", 1),
    ("loop", "patience", 1),
    ("loop", "max_validation_users", 1),
    ("loop", "max_minutes", 0),
    ("loop", "seed", 0),
    ("loop", "num_threads", 0),
)
_SHARES: tuple[tuple[str, str], ...] = (
    ("model", "dropout"),
    ("model", "emb_dropout"),
    ("loss", "label_smoothing"),
    ("optim", "momentum"),
    ("optim", "ema_decay"),
    ("optim", "beta1"),
    ("optim", "beta2"),
    ("pretrain", "mask_share"),
    ("pretrain", "reorder_share"),
    ("pretrain", "substitute_share"),
    ("text", "id_dropout"),
    ("text", "word_dropout"),
    ("text", "synonym_share"),
    ("text", "translate_share"),
)
_POSITIVE: tuple[tuple[str, str], ...] = (
    ("split", "train_share"),
    ("split", "session_hours"),
    ("model", "temperature"),
    ("pretrain", "crop_share"),
    ("pretrain", "contrastive_temperature"),
)
_AT_MOST_ONE: tuple[tuple[str, str], ...] = (
    ("split", "train_share"),
    ("loss", "gbce_t"),
    ("optim", "final_rate"),
    ("pretrain", "crop_share"),
)
RANGES: tuple[tuple[Sequence[tuple[str, str]], Callable[[float], bool], str], ...] = (
    (_SHARES, lambda value: 0 <= value < 1, "in [0, 1)"),
    (_AT_MOST_ONE, lambda value: 0 <= value <= 1, "in [0, 1]"),
    (_POSITIVE, lambda value: math.isfinite(value) and value > 0, "above 0, and finite"),
)
