"""What runs learn by: heads, masks, views; what does not go together is refused."""

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.training import builders
from training.augment import Augmenter, cooccurrence_substitutes, make_substitutes, text_substitutes
from training.cleaning import CleanOptions
from training.config import PretrainConfig, TrainingError
from training.dataset import TrainingBatch, TrainingSet
from training.importers.events import ColumnOptions, import_events
from training.importers.writing import write_dataset
from training.items import ItemFacts
from training.model.sequence_model import SequenceModel
from training.objectives import make_objective
from training.runs import read_inputs
from training.splits import leave_one_out
from training.train import train

WORDS = ["abcdefgh", "bcdefgha", "cdefghab", "defghabc"]


def example(window_len: int = 6) -> tuple[TrainingBatch, int]:
    """One batch of four walks through eight letters."""
    events = builders.events(WORDS)
    training = TrainingSet(events, leave_one_out(events).train, window_len, "known")
    loop = builders.tiny_config().loop
    return next(iter(training.epoch(loop, np.random.default_rng(0)))), events.num_items


@pytest.mark.parametrize("low", [False, True], ids=["float32", "bfloat16"])
@pytest.mark.parametrize(
    "overrides",
    [
        ("loss.name=full", "loss.label_smoothing=0.1"),
        ("loss.name=sampled", "loss.num_negatives=4"),
        ("loss.name=sampled", "loss.num_negatives=4", "loss.sampler=popularity"),
        ("loss.name=bce", "loss.num_negatives=1", "model.copy=false"),
        ("loss.name=gbce", "loss.num_negatives=4", "model.copy=false"),
        ("model.copy=true", "model.copy_heads=2"),
        ("model.copy=true", "model.copy_heads=0"),
        ('model.tasks=["next-item", "click", "watch"]',),
        ("pretrain.objective=masked",),
        ("pretrain.objective=contrastive",),
        ("model.family=bert4rec", "model.copy=false"),
        ("model.family=lstm", 'model.tasks=["click"]'),
        ("model.family=gru", "model.copy=false"),
        ("model.family=sasrec", "model.copy=false"),
        ("model.block=hstu",),
        ("model.distances=true", "model.places=true", "model.categories=true"),
        ("model.family=lm", "model.weights=gpt2", "model.copy=false"),
        ("model.family=lm", "model.weights=bert", "pretrain.objective=masked"),
    ],
)
def test_every_objective_moves_what_it_should(overrides: tuple[str, ...], *, low: bool) -> None:
    """A finite loss over the rows it says, and a gradient that reaches the item vectors.

    In bfloat16 as in float32: what a loss scatters and what it scatters into must agree.
    """
    config = builders.tiny_config(*overrides)
    events = builders.events(WORDS)
    objective = make_objective(config, events, leave_one_out(events).train)
    batch, num_items = example()
    torch.manual_seed(1)
    model = SequenceModel(config.model, ItemFacts.unknown(num_items))
    with torch.no_grad():
        for parameter in model.parameters():  # value heads start at zero, and pass nothing on
            parameter.add_(torch.randn_like(parameter) * 0.1)
    with torch.autocast("cpu", torch.bfloat16, enabled=low):
        loss = objective(model, batch)
    assert torch.isfinite(loss.mean)
    assert loss.num_rows > 0
    torch.autograd.backward(loss.mean)
    gradient = model.items.identity.weight.grad
    assert gradient is not None
    assert gradient.abs().sum().item() > 0


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("model.copy=true", "loss.name=bce"), "needs 'full' or 'sampled'"),
        (("loss.name=bce", "model.copy=false", "loss.label_smoothing=0.1"), "set it to 0"),
        (("loss.sampler=popularity",), "needs loss.name = 'sampled'"),
        (("model.family=gru", "pretrain.objective=masked"), "reads one way"),
        (('model.tasks=["click"]', "pretrain.objective=masked"), "must hold 'next-item'"),
        (("model.family=bert4rec", "model.copy=true"), "no copy"),
        (("model.family=bert4rec", "pretrain.objective=contrastive"), "by masks alone"),
    ],
)
def test_what_does_not_go_together_is_refused(overrides: tuple[str, ...], message: str) -> None:
    """Before the first step, with the settings' names."""
    events = builders.events(WORDS)
    with pytest.raises(TrainingError, match=message):
        make_objective(builders.tiny_config(*overrides), events, leave_one_out(events).train)


def test_a_masked_event_does_not_reach_its_own_answer() -> None:
    """Other items at the masked places give the same queries there: nothing of them leaks."""
    model = SequenceModel(
        builders.tiny_config("pretrain.objective=masked").model, ItemFacts.unknown(8)
    ).eval()
    batch, _ = example()
    window = batch.batch
    masked = torch.zeros_like(window.items, dtype=torch.bool)
    masked[:, 2] = True
    results = []
    for items in (window.items, torch.where(masked, 9 - window.items, window.items)):
        table = model.items()
        vectors = torch.where(masked[..., None], model.mask_vector, table[items])
        hidden = window.hidden_at(masked)
        output = model.read(hidden, table, vectors, items.shape[1], both_ways=True)
        results.append(output.hidden)
    torch.testing.assert_close(results[0], results[1])


def augmenter(**shares: float) -> Augmenter:
    """An augmenter whose substitutes are the letters' co-occurrences."""
    events = builders.events(WORDS)
    substitutes = cooccurrence_substitutes(events, leave_one_out(events).train)
    return Augmenter(PretrainConfig(**shares), substitutes)  # type: ignore[arg-type]  # shares only


def test_views_stay_left_padded_windows_in_order_of_time() -> None:
    """Whatever way is drawn: padding first, times rising, items of the vocabulary."""
    torch.manual_seed(2)
    views = augmenter()
    batch, num_items = example()
    changed = 0
    for _ in range(50):
        view = views.view(batch.batch)
        real = view.batch.items > 0
        assert bool((real[:, 1:] >= real[:, :-1]).all())
        assert int(view.batch.items.max()) <= num_items
        times = torch.where(real, view.batch.timestamps_ms, 0)
        assert bool((times[:, 1:] >= times[:, :-1]).all())
        assert bool((real | ~view.masked).all())
        changed += int((view.batch.items != batch.batch.items).any(dim=1).sum())
    assert changed > 60


def test_a_crop_keeps_a_run_of_the_events() -> None:
    """Six events cropped to a half are three neighbours."""
    torch.manual_seed(0)
    views = augmenter(crop_share=0.5, reorder_share=0.0, substitute_share=0.0, mask_share=0.0)
    batch, _ = example()
    crops = set()
    for _ in range(40):
        for row in views.view(batch.batch).batch.items.tolist():
            kept = [item for item in row if item]
            if len(kept) < len(row):
                crops.add(tuple(kept))
    assert {len(crop) for crop in crops} == {3}
    steps = {(b - a) % 8 for crop in crops for a, b in itertools.pairwise(crop)}
    assert steps == {1}


def test_items_of_similar_words_stand_for_each_other() -> None:
    """By words, best first; an item with none in common with another stands for itself."""
    texts = ["", "the Red Planet", "red planet rising", "a planet of their own", "blue lagoon", ""]
    table = text_substitutes(texts).tolist()
    assert [row[0] for row in table] == [0, 2, 1, 1, 4, 5]
    assert set(table[1]) == {1, 2, 3}
    assert set(table[4]) == {4}


def test_similar_words_are_found_in_a_catalogue_of_several_blocks() -> None:
    """Twins far apart: the blocks in which similarities are taken change nothing."""
    half = 1500
    texts = ["", *(f"word{place % half}" for place in range(2 * half))]
    table = text_substitutes(texts)
    assert (table[1 : half + 1, 0] == torch.arange(half + 1, 2 * half + 1)).all()
    assert (table[half + 1 :, 0] == torch.arange(1, half + 1)).all()


def test_substitutes_come_from_what_the_settings_name() -> None:
    """Both sources lie side by side; texts that do not exist are refused, with a way out."""
    events = builders.events(WORDS)
    train = leave_one_out(events).train
    texts = ["", *(f"same {item}" for item in events.items)]
    counted, read, both = (
        make_substitutes(source, events, train, texts)
        for source in ("cooccurrence", "text", "both")
    )
    assert torch.equal(both, torch.cat([counted, read], dim=1))
    config = builders.tiny_config("pretrain.objective=contrastive", "pretrain.substitutes=text")
    with pytest.raises(TrainingError, match=r"pretrain.substitutes = 'text': no item has a title"):
        make_objective(config, events, train, [""] * len(texts))


@pytest.mark.parametrize("objective", ["masked", "contrastive"])
def test_pretraining_then_tuning_starts_from_the_weights_that_were_learnt(
    tmp_path: Path, objective: str
) -> None:
    """Heads only learn, so the body's weights after tuning are those of pre-training."""
    dataset = builders.cyclic_dataset(tmp_path)[0]
    first = builders.tiny_config(f"pretrain.objective={objective}", "loop.max_epochs=1")
    pretrained = train(read_inputs(dataset, first), first, tmp_path / "pre")
    second = builders.tiny_config(
        f"pretrain.init_from={tmp_path / 'pre'}", "pretrain.freeze=head-only", "loop.max_epochs=2"
    )
    tuned = train(read_inputs(dataset, second), second, tmp_path / "tuned")
    layers = [name for name in tuned.model if name.startswith("body.layers.")]
    assert layers
    for name in layers:
        torch.testing.assert_close(tuned.model[name], pretrained.model[name])
    scale = "heads.next-item.log_scale"
    assert not torch.equal(tuned.model[scale], pretrained.model[scale])


def test_weights_that_may_know_the_future_or_other_items_are_refused(tmp_path: Path) -> None:
    """Names and shapes fit in both: only the other run's settings and data tell."""
    dataset = builders.cyclic_dataset(tmp_path)[0]
    first = builders.tiny_config("loop.max_epochs=1")
    train(read_inputs(dataset, first), first, tmp_path / "loo")
    start = f"pretrain.init_from={tmp_path / 'loo'}"
    second = builders.tiny_config(start, "split.protocol=temporal")
    with pytest.raises(TrainingError, match=r"may have learned from this run's targets"):
        train(read_inputs(dataset, second), second, tmp_path / "temporal")
    (tmp_path / "more").mkdir()
    source = builders.cyclic_csv(tmp_path / "more" / "log.csv", num_users=25)
    other = tmp_path / "more" / "dataset"
    write_dataset(import_events(source, ColumnOptions()), CleanOptions(), other, source)
    third = builders.tiny_config(start)
    with pytest.raises(TrainingError, match=r"loo was trained on other data"):
        train(read_inputs(other, third), third, tmp_path / "others")
    fourth = builders.tiny_config(start, "split.train_share=0.5", "loop.max_epochs=1")
    assert train(read_inputs(dataset, fourth), fourth, tmp_path / "half").epoch == 1


def test_a_watch_head_needs_durations(tmp_path: Path) -> None:
    """A mean of no seconds is no number; the log has none."""
    dataset = builders.cyclic_dataset(tmp_path)[0]
    config = builders.tiny_config('model.tasks=["next-item", "watch"]')
    with pytest.raises(TrainingError, match=r"no training event has what the head 'watch' learns"):
        train(read_inputs(dataset, config), config, tmp_path / "run")


@pytest.mark.parametrize("loss", ["full", "sampled", "bce", "gbce"])
def test_a_batch_in_which_nobody_acted_teaches_the_next_item_nothing(loss: str) -> None:
    """All views, a click head beside: the mean over no rows is 0, not NaN."""
    config = builders.tiny_config(
        f"loss.name={loss}", "loss.num_negatives=4", "model.copy=false",
        'model.tasks=["next-item", "click"]',
    )  # fmt: skip
    events = builders.events(WORDS)
    objective = make_objective(config, events, leave_one_out(events).train)
    batch, num_items = example()
    loss_of = objective(SequenceModel(config.model, ItemFacts.unknown(num_items)), batch)
    assert torch.isfinite(loss_of.mean)


@pytest.mark.parametrize("family", ["ligr", "bert4rec"])
def test_a_masked_event_is_asked_about_at_its_own_time(family: str) -> None:
    """Moving the event after the last one by a day moves only the mask that stands for it."""
    config = builders.tiny_config(
        f"model.family={family}", "model.copy=false", "model.request_time=known",
        "pretrain.objective=masked", "pretrain.mask_share=0.5", "model.dropout=0.0",
        *(["model.emb_dropout=0.0"] if family == "ligr" else []),
    )  # fmt: skip
    events = builders.events(WORDS)
    objective = make_objective(config, events, leave_one_out(events).train)
    batch, num_items = example()
    model = SequenceModel(config.model, ItemFacts.unknown(num_items)).eval()
    losses = []
    for later in (0, builders.DAY_MS):
        torch.manual_seed(3)
        times = batch.batch.query_times_ms + later
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.copy_(torch.randn_like(parameter) * 0.1)
            moved = replace(batch, batch=replace(batch.batch, query_times_ms=times))
            losses.append(objective(model, moved).mean.item())
    assert (losses[0] == losses[1]) == (family == "ligr")


def test_weights_of_another_shape_are_refused(tmp_path: Path) -> None:
    """Half a body taken over would be neither run's."""
    dataset = builders.cyclic_dataset(tmp_path)[0]
    first = builders.tiny_config("loop.max_epochs=1")
    train(read_inputs(dataset, first), first, tmp_path / "small")
    second = builders.tiny_config(f"pretrain.init_from={tmp_path / 'small'}", "model.dim=16")
    with pytest.raises(TrainingError, match=r"has no fitting items\.identity\.weight"):
        train(read_inputs(dataset, second), second, tmp_path / "large")
