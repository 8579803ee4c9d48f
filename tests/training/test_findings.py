"""Findings of a run: worked by hand where numbers are, whole for every kind of run."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from service.contract.features import Arrays, Float32s
from tests.training import builders
from tests.training.test_report import Reader
from tests.training.text.checkpoints import WORDS
from training.checkpoints import BEST_FILE, load_state
from training.config import RunConfig, TrainingError, load_run_config
from training.data import ITEMS_FILE, read_items
from training.dataset import case_batches, inference_batch
from training.findings.attention import attention_weights
from training.findings.calibration import ProbabilityRecorder, calibration, wilson_interval
from training.findings.item_map import ItemNames, item_map, neighbours
from training.findings.start import compare, keep_start, sampled_cases
from training.findings.time_curves import bias_curves
from training.runs import load_run, read_inputs
from training.tracking import train_with_report, write_findings
from training.train import train


class Fixed:
    """Scores every case by the logarithms of the same probabilities."""

    def __init__(self, probabilities: list[float]) -> None:
        self._scores = np.log(np.array([1.0, *probabilities], np.float32))

    def score(self, arrays: Arrays) -> Float32s:
        """Return (cases, num_items + 1)."""
        return np.repeat(self._scores[None], len(arrays["items"]), axis=0)


def test_the_calibration_error_weighs_each_bins_distance_by_its_count() -> None:
    """20 predictions make 2 bins: .1 happened 0 of 10, .8 happened 6 of 10: (.1 + .2) / 2."""
    predicted = np.array([0.1] * 10 + [0.8] * 10)
    happened = np.array([False] * 10 + [True] * 6 + [False] * 4)
    found = calibration(predicted, happened)
    assert [each["count"] for each in found["bins"]] == [10, 10]
    assert [each["observed"] for each in found["bins"]] == [0.0, 0.6]
    assert found["ece"] == pytest.approx((0.1 + 0.2) / 2)


def test_an_interval_of_nothing_observed_reaches_above_it() -> None:
    """Wilson at 0 of 10: z² / (n + z²) = 3.8415 / 13.8415."""
    low, high = wilson_interval(0.0, 10)
    assert low == pytest.approx(0.0, abs=1e-9)
    assert high == pytest.approx(3.8415 / 13.8415, abs=1e-4)


def test_probabilities_are_a_softmax_over_the_items_without_padding() -> None:
    """Items 1 and 2 have 3/4 and 1/4; item 2 came."""
    recorder = ProbabilityRecorder(Fixed([0.75, 0.25]))
    recorder.score({"items": np.ones((1, 3), np.int64)})
    predicted, came = recorder.outcomes(np.array([2]))
    assert dict(zip(came.tolist(), predicted.tolist(), strict=True)) == {
        False: pytest.approx(0.75),
        True: pytest.approx(0.25),
    }


def test_before_and_after_are_paired() -> None:
    """Ranks 2 and 1 become 1 and 1: MRR .75 to 1; a user gains .5, the other nothing."""
    found = compare(np.array([2, 1]), np.array([1, 1]), np.array([0, 1]))["mrr"]
    assert (found["before"], found["after"], found["difference"]) == (0.75, 1.0, 0.25)
    assert found["interval"] == [0.0, 0.5]


def test_neighbours_are_the_nearest_other_items() -> None:
    """Item 3 points as item 1 does, item 2 across; the most events are item 1's."""
    vectors = np.array([[0, 0], [1, 0], [0, 1], [0.8, 0.6]], np.float32)
    found = neighbours(vectors, np.array([0, 9, 1, 1]))
    assert found[0] == {"item": 1, "near": [3, 2]}


def test_the_map_keeps_all_variance_of_a_plane_and_colours_by_category() -> None:
    """Points of a line need one component; those with the most events come first."""
    vectors = np.array([[0, 0], [1, 1], [2, 2], [3, 3]], np.float32)
    names = ItemNames(("", "a", "b", "c"), ("", "Bar", "", "Bar"))
    found = item_map(vectors, np.array([0, 1, 5, 2]), names)
    assert found["kept"] == [pytest.approx(1.0), pytest.approx(0.0)]
    assert [point[2:] for point in found["points"]] == [[1, "b"], [0, "c"], [0, "a"]]
    assert found["groups"] == ["Bar", "other"]


KINDS = {
    "time": ("time", ()),
    "no time": ("base", ()),
    "hstu": ("hstu", ()),
    "sasrec": ("sasrec", ()),
    "bert4rec": ("bert4rec", ()),
    "gru": ("gru", ()),
    "masked": ("time", ("pretrain.objective=masked",)),
    "contrastive": ("time", ("pretrain.objective=contrastive",)),
    "click": ("time", ('model.tasks=["next-item", "click"]',)),
    "average": ("time", ("optim.ema_decay=0.5",)),
}


def settings(preset: str, *more: str) -> RunConfig:
    """Return tiny settings, without those that a family does not have."""
    given = list(builders.TINY)
    while True:
        try:
            return load_run_config(preset, None, [*given, *more])
        except TrainingError as exc:
            name = str(exc).split(" ")[0]
            kept = [each for each in given if not each.startswith(name)]
            if len(kept) == len(given):
                raise
            given = kept


@pytest.mark.integration
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_run_has_a_whole_report(tmp_path: Path, kind: str) -> None:
    """Sections for all; what a family lacks is said in one line."""
    dataset = builders.cyclic_dataset(tmp_path)[0]
    preset, more = KINDS[kind]
    config = settings(preset, *more)
    run = tmp_path / "run"
    train_with_report(read_inputs(dataset, config), config, run)
    page = (run / "report.html").read_text()
    text = Reader(page).text
    for heading in ("Before and after", "Who and when", "Calibration", "Attention", "Items"):
        assert heading in text
    assert ("has no attention" in text) == (kind == "gru")
    assert ("Attention bias by time gap" in text) == (preset in ("time", "hstu"))
    assert "://" not in page
    assert ">nan" not in page


def test_weights_are_the_same_with_and_without_a_report(tmp_path: Path) -> None:
    """Looking at the start and the end draws nothing that training draws."""
    dataset = builders.cyclic_dataset(tmp_path)[0]
    config = builders.tiny_config()
    inputs = read_inputs(dataset, config)
    train(inputs, config, tmp_path / "plain")
    train_with_report(inputs, config, tmp_path / "looked-at")
    plain, looked_at = (
        load_state(tmp_path / name / BEST_FILE).model for name in ("plain", "looked-at")
    )
    assert all(torch.equal(plain[name], looked_at[name]) for name in plain)


def test_a_run_that_was_ended_keeps_its_start_and_one_without_says_so(tmp_path: Path) -> None:
    """The start is measured once, before the first epoch, and a report can be made anew."""
    dataset, run = builders.cyclic_dataset(tmp_path)[0], tmp_path / "run"
    config = builders.tiny_config()
    inputs = read_inputs(dataset, config)

    def end(row: dict[str, float]) -> None:
        raise InterruptedError

    def keep(model: torch.nn.Module) -> None:
        keep_start(run, inputs, config, model)  # type: ignore[arg-type]  # a SequenceModel

    with pytest.raises(InterruptedError):
        train(inputs, config, run, on_epoch=end, on_start=keep)
    start = (run / "start.json").read_bytes()
    train_with_report(inputs, config, run)
    assert (run / "start.json").read_bytes() == start
    assert json.loads(start)["rows"]
    assert "random weights of seed 1" in (run / "report.html").read_text()
    (run / "start.json").unlink()
    write_findings(run, load_run(run))
    assert "was not recorded" in (run / "report.html").read_text()


def test_attention_adds_up_to_one_and_looks_at_nothing_later(tmp_path: Path) -> None:
    """Rows of every layer and head are shares; what comes later has none."""
    dataset, run = builders.cyclic_dataset(tmp_path)[0], tmp_path / "run"
    config = builders.tiny_config("loop.max_epochs=1")
    inputs = read_inputs(dataset, config)
    train(inputs, config, run)
    model = load_run(run).model
    arrays = next(case_batches(inputs.events, sampled_cases(inputs), 6, "known"))[1]
    layers = attention_weights(model, inference_batch(arrays))
    assert [layer.shape[0] for layer in layers] == [2, 2]
    for layer in layers:
        assert torch.allclose(layer.sum(dim=-1), torch.ones(()), atol=1e-5)
        assert layer[:, 0].triu(1).max() < 1e-6
    gap = bias_curves(model, arrays)["gap"]
    assert gap["at"][0] < 86_400 < gap["at"][-1] * 2
    assert sum(gap["pairs"]) == int((arrays["items"] > 0).sum())


@pytest.mark.integration
@pytest.mark.parametrize("kind", ["sequence", "texts", "warm"])
def test_a_run_that_starts_from_weights_says_from_which(tmp_path: Path, kind: str) -> None:
    """A language model as the body or over the texts, and another run's weights."""
    dataset = builders.cyclic_dataset(tmp_path)[0]
    if kind == "sequence":
        config, said = _language(), "a language model's layers (model.weights)"
    elif kind == "texts":
        folder = builders.language_checkpoint("bert")
        _give_titles(dataset)
        config = builders.tiny_config(f"text.weights={folder}", "text.max_tokens=8")
        said = "a language model's vectors of the texts (text.weights)"
    else:
        first = builders.tiny_config("pretrain.objective=contrastive")
        train(read_inputs(dataset, first), first, tmp_path / "first")
        config = builders.tiny_config(f"pretrain.init_from={tmp_path / 'first'}")
        said = "the best weights of the run first (pretrain.init_from)"
    run = tmp_path / "run"
    train_with_report(read_inputs(dataset, config), config, run)
    text = Reader((run / "report.html").read_text()).text
    assert f"The run started from {said}" in text
    assert "Attention of validation user 1" in text


def _language() -> RunConfig:
    return builders.tiny_config(
        "model.family=lm", "model.weights=gpt2", "model.copy=false", "model.time_gaps=true"
    )


def _give_titles(dataset: Path) -> None:
    items = read_items(dataset)
    titles = pa.array([" ".join(WORDS[at : at + 2]) for at in range(len(items))])
    place = items.schema.get_field_index("title")
    pq.write_table(items.set_column(place, "title", titles), dataset / ITEMS_FILE)
