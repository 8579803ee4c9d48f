"""What is trained: tasks, shapes and the peers' settings, with where each comes from.

Shapes are the same for all: d 64, 2 blocks, windows of 200 events (20 for grocery, whose users
have 8 on average, as ReChorus takes on the same log), dropout .2, Adam, learning rate 1e-3,
batches of 128. HSTU has one head, cosine similarity and a logit scale of .05, as in RecTools' own
tutorial for its published figures; SASRec has two, as in RecTools' guide to training. Both learn
by cross-entropy over all items.
The 943 users of ml-100k give eight batches of 128 an epoch, so all its models, ours too, have
batches of 32.
"""

from dataclasses import asdict, dataclass
from typing import Any

PEERS = ("hstu", "sasrec")
# Task to (protocol, whether times may be read).
TASKS = {
    "known": ("leave-one-out", True),
    "blind": ("leave-one-out", False),
    "temporal": ("temporal", True),
    "trajectory": ("trajectory", True),
}
# Check-ins are asked for the next place of a trajectory, everything else for all but that.
DATASET_TASKS = {
    "ml-100k": ("known", "blind", "temporal"),
    "grocery": ("known", "blind", "temporal"),
    "nyc": ("trajectory",),
}
MAX_EPOCHS, MIN_EPOCHS, PATIENCE = 100, 10, 5
QUICK_EPOCHS = 2


@dataclass(frozen=True, slots=True)
class Shape:
    """What a data set fixes: the window, and the batch sizes that the peers may choose from."""

    window_len: int
    batch_sizes: tuple[int, ...] = (128,)


SHAPES = {"ml-100k": Shape(200, (32,)), "grocery": Shape(20), "nyc": Shape(200)}


@dataclass(frozen=True, slots=True)
class PeerSettings:
    """A peer's published settings."""

    num_heads: int
    logits_t: float


PEER_SETTINGS = {"hstu": PeerSettings(1, 0.05), "sasrec": PeerSettings(2, 1.0)}


def shape_of(dataset: str) -> Shape:
    """Return a data set's shape; others get the window of 200."""
    return SHAPES.get(dataset, Shape(200))


def peer_jobs(
    peer: str, dataset: str, task: str, seed: int, *, quick: bool
) -> list[dict[str, Any]]:
    """Return the jobs that a peer may choose from on validation, without threads and rule.

    SASRec reads no times, so its jobs for `known` and `blind` are equal, and run once.
    """
    settings, shape = PEER_SETTINGS[peer], shape_of(dataset)
    return [
        asdict(settings)
        | {
            "model": peer,
            "time_aware": TASKS[task][1] and peer == "hstu",
            "window_len": shape.window_len,
            "dim": 64,
            "num_blocks": 2,
            "dropout": 0.2,
            "learning_rate": 1e-3,
            "batch_size": batch_size,
            "loss": "softmax",
            "num_negatives": 1,
            "max_epochs": QUICK_EPOCHS if quick else MAX_EPOCHS,
            "min_epochs": MIN_EPOCHS,
            "patience": PATIENCE,
            "seed": seed,
        }
        for batch_size in shape.batch_sizes
    ]
