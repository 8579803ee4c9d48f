"""Several processes as one: `torchrun --nproc-per-node N -m training train ...`.

Every process draws the same batches and takes its own rows of each; the gradients are averaged
with weights by how many positions each process trained, so that the step is that of one process
with the whole batch.
"""

import os
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from training.dataset import TrainingBatch
from training.model.sequence_model import SequenceModel
from training.objectives import BatchLoss, Objective


@dataclass(frozen=True, slots=True)
class Ranks:
    """This process among all; `rank` 0 writes files."""

    rank: int = 0
    world: int = 1

    @property
    def writes(self) -> bool:
        """Return whether this is the process that writes."""
        return self.rank == 0


ALONE = Ranks()


def join_ranks() -> Ranks:
    """Join the group that torchrun describes in the environment, or be alone."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        return ALONE
    if not distributed.is_initialized():
        on_gpus = torch.cuda.is_available()
        if on_gpus:
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
        distributed.init_process_group("nccl" if on_gpus else "gloo")
    return Ranks(distributed.get_rank(), world)


class LossModule(nn.Module):
    """A model together with what it learns by, so that one forward pass is the whole loss."""

    def __init__(self, model: SequenceModel, objective: Objective) -> None:
        super().__init__()
        self.model = model
        self._objective = objective

    def forward(self, batch: TrainingBatch) -> tuple[Tensor, int]:
        """Return the mean loss and the number of rows it is over."""
        texts = self.model.items.texts
        with texts.reading(batch.targets, batch.batch.items) if texts else nullcontext():
            loss: BatchLoss = self._objective(self.model, batch)
        more = texts.extra_loss() if texts else None
        return loss.mean if more is None else loss.mean + more, loss.num_rows


def wrap(module: LossModule, ranks: Ranks) -> nn.Module:
    """Return the module as DistributedDataParallel when there are several processes."""
    if ranks.world == 1:
        return module
    return DistributedDataParallel(module, find_unused_parameters=True)


def own_rows(batch: TrainingBatch, ranks: Ranks) -> TrainingBatch:
    """Return this process's rows of a batch.

    Of a batch with fewer rows than processes, those without one get the first, to take the step
    with everybody; `own_share` says that it counts for nothing.
    """
    if ranks.world == 1:
        return batch
    first = ranks.rank if ranks.rank < len(batch.targets) else 0
    return batch.select(slice(first, None, ranks.world))


def own_share(batch: TrainingBatch, ranks: Ranks) -> int:
    """Return 1 where this process has rows of its own in a batch, else 0."""
    return int(ranks.rank < len(batch.targets))


def agreed(row: dict[str, float], ranks: Ranks) -> dict[str, float]:
    """Return the first process's row: what ends a run must end it for all processes at once."""
    if ranks.world == 1:
        return row
    shared = [row]
    distributed.broadcast_object_list(shared)
    return shared[0]


def weighted(mean: Tensor, num_rows: int, ranks: Ranks) -> tuple[Tensor, float]:
    """Return the loss to differentiate, so that averaged gradients are the whole batch's.

    The second value is the mean loss over all processes.
    """
    if ranks.world == 1:
        return mean, float(mean.detach())
    sums = torch.stack([mean.detach() * num_rows, mean.new_tensor(float(num_rows))])
    distributed.all_reduce(sums)
    total = max(1.0, float(sums[1]))
    return mean * (num_rows * ranks.world / total), float(sums[0]) / total
