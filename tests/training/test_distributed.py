"""Two processes through torchrun learn what one does."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.training import builders
from training.checkpoints import LAST_FILE, load_state
from training.runs import read_inputs
from training.train import METRICS_FILE, train

SETTINGS = ("model.dropout=0.0", "model.emb_dropout=0.0", "loop.max_epochs=2")


@pytest.mark.integration
@pytest.mark.parametrize("batch_size", [4, 23], ids=["even", "a last batch of one sequence"])
def test_two_processes_give_the_result_of_one(tmp_path: Path, batch_size: int) -> None:
    """The same losses, metrics and weights to rounding: gradients are weighted by positions."""
    dataset = builders.cyclic_dataset(tmp_path)[0]
    settings = (*SETTINGS, f"loop.batch_size={batch_size}")
    config = builders.tiny_config(*settings)
    alone = train(read_inputs(dataset, config), config, tmp_path / "one")
    overrides = [f"--set={text}" for text in (*builders.TINY, *settings)]
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2",
        "-m", "training", "train", f"--data={dataset}", f"--out={tmp_path / 'two'}",
        "--preset=time", *overrides,
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    together = json.loads((tmp_path / "two" / METRICS_FILE).read_text())["history"]
    assert len(together) == len(alone.history) == 2
    for ours, theirs in zip(alone.history, together, strict=True):
        assert theirs["loss"] == pytest.approx(ours["loss"], rel=1e-4)
        assert theirs["ndcg@10"] == pytest.approx(ours["ndcg@10"], abs=1e-3)
    weights = load_state(tmp_path / "two" / LAST_FILE).model
    for name, weight in alone.model.items():
        torch.testing.assert_close(weights[name], weight, rtol=1e-2, atol=2e-3)
