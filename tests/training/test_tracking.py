"""Boards beside a run: what they hold, and that they neither change nor lose it."""

import builtins
import json
import os
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.training import builders
from training.checkpoints import BEST_FILE, load_state
from training.config import TrainingError
from training.runs import read_inputs
from training.tracking import train_with_report
from training.wandb_log import WandbLog

NOWHERE = "http://127.0.0.1:9"
BLOCK = 32_768
WHOLE, LAST = 1, 4


def trained_offline(dataset: Path, run: Path, *options: str) -> None:
    """Train in a process of its own, from which nothing can be reached."""
    tiny = [part for text in builders.TINY for part in ("--set", text)]
    command = ["train", "--data", str(dataset), "--out", str(run), "--preset", "time", *tiny]
    offline = {"WANDB_MODE": "offline", "WANDB_BASE_URL": NOWHERE, "WANDB_SILENT": "true"}
    proxies = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"), NOWHERE)
    done = subprocess.run(
        [sys.executable, "-m", "training", *command, *options],
        env=os.environ | offline | proxies,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]


def records(run: Path) -> Iterator[Any]:
    """Read back what wandb wrote into a run's folder.

    Its file is a log of LevelDB: 7 bytes of its own, then in blocks of 32 KiB pieces of records
    with a checksum (4 bytes), a length (2) and a kind (1): whole, first, middle or last.
    """
    from wandb.proto import wandb_internal_pb2  # noqa: PLC0415  # slow to load

    (path,) = run.glob("wandb/offline-run-*/run-*.wandb")
    data, at, parts = path.read_bytes(), 7, b""
    while at + 7 <= len(data):
        if BLOCK - at % BLOCK < 7:
            at += BLOCK - at % BLOCK
            continue
        _, length, kind = struct.unpack("<IHB", data[at : at + 7])
        parts += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (WHOLE, LAST):
            record = wandb_internal_pb2.Record()  # type: ignore[attr-defined]  # made at import
            record.ParseFromString(parts)
            parts = b""
            yield record


@pytest.mark.integration
def test_an_offline_run_holds_settings_epochs_and_report_and_learns_the_same(
    tmp_path: Path,
) -> None:
    """The weights are those of a run without it, and the values those of metrics.json."""
    dataset = builders.cyclic_dataset(tmp_path)[0]
    plain, logged = tmp_path / "plain", tmp_path / "logged"
    trained_offline(dataset, plain)
    trained_offline(dataset, logged, "--wandb", "shop")
    states = [load_state(run / BEST_FILE).model for run in (plain, logged)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])

    history = json.loads((logged / "metrics.json").read_text())["history"]
    losses, settings, artifacts = [], {}, []
    for record in records(logged):
        if record.HasField("history"):
            row = {"/".join(i.nested_key) or i.key: i.value_json for i in record.history.item}
            losses.append(json.loads(row["loss"]))
        elif record.HasField("run"):
            for item in record.run.config.update:
                settings[item.key] = json.loads(item.value_json)
        elif record.HasField("request") or record.HasField("artifact"):
            artifacts.append(record.artifact.type or record.request.log_artifact.artifact.type)
    assert losses == [row["loss"] for row in history]
    assert settings["model"]["dim"] == 8
    assert settings["dataset"]
    assert "report" in artifacts


class Broken:
    """A tracker that fails at everything after its start."""

    id = "x"

    def log(self, *_: object, **__: object) -> None:
        """Fail."""
        raise ConnectionError("gone")


def test_a_tracker_that_fails_does_not_lose_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The failure is logged once, and the run ends with its report."""
    dataset, run = builders.cyclic_dataset(tmp_path)[0], tmp_path / "run"
    config = builders.tiny_config()
    monkeypatch.setattr("wandb.init", lambda **_: Broken())
    train_with_report(read_inputs(dataset, config), config, run, "shop")
    assert (run / "report.html").is_file()
    assert [r.message for r in caplog.records if "Weights" in r.message] == [
        "Weights & Biases failed; the run goes on without it"
    ]


def test_a_tracker_that_cannot_start_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is lost before the first epoch, so the command ends."""

    def refuse(**_: object) -> None:
        raise ConnectionError("no key")

    monkeypatch.setattr("wandb.init", refuse)
    with pytest.raises(TrainingError, match=r"no key; log in with .*WANDB_MODE=offline"):
        WandbLog("shop", tmp_path / "run", {})


def test_without_the_package_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message is the command that mends it."""
    plain = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name == "wandb":
            raise ModuleNotFoundError("No module named 'wandb'", name="wandb")
        return plain(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(TrainingError, match=r"pip install 'sojourn\[wandb\]'"):
        WandbLog("shop", tmp_path / "run", {})


def test_tensorboard_has_the_findings_beside_the_epochs(tmp_path: Path) -> None:
    """Numbers, histograms, pictures of attention, and the settings of the run."""
    dataset, run = builders.cyclic_dataset(tmp_path)[0], tmp_path / "run"
    config = builders.tiny_config()
    train_with_report(read_inputs(dataset, config), config, run)
    board = EventAccumulator(str(run / "tensorboard" / "report"))
    board.Reload()
    tags = board.Tags()
    metrics = json.loads((run / "metrics.json").read_text())
    (best,) = board.Scalars("best/ndcg_at_10")
    assert best.value == pytest.approx(metrics["best_validation"]["ndcg@10"])
    assert {"calibration/next-item_ece", "start/mrr_before"} <= set(tags["scalars"])
    assert "bias_by_gap/head_1" in tags["histograms"]
    assert "attention/user_1" in tags["images"]
    assert board.PluginTagToContent("hparams")
