"""What texts add to item vectors, and how a language model inside a run learns."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from tests.training import builders
from tests.training.text.checkpoints import WORDS, save_bert
from training.cold_start import cold_item_figures
from training.config import RunConfig, TextPolicy, TrainingError
from training.data import ITEMS_FILE, read_items
from training.importers.writing import hold_items_out
from training.model.sequence_model import SequenceModel
from training.optimisers import freeze
from training.runs import load_run, read_inputs
from training.text.items import ItemTexts, make_item_texts
from training.train import build_model, make_learner, train

pytestmark = pytest.mark.integration

POLICIES: tuple[TextPolicy, ...] = (
    "frozen", "head", "last-n", "full", "lora", "adalora", "prefix", "adapter",
)  # fmt: skip


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny BERT's folder."""
    return save_bert(tmp_path_factory.mktemp("bert"))


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """The cyclic log, whose items have titles of two words."""
    folder, _ = builders.cyclic_dataset(tmp_path)
    named(folder)
    return folder


def named(folder: Path) -> None:
    """Give items titles: those next to each other in the cycle share a word."""
    items = read_items(folder)
    numbers = [int(item[1:]) for item in items["item_id"].to_pylist()]
    titles = pa.array([f"{WORDS[n]} {WORDS[n + 1]}" for n in numbers])
    at = items.schema.get_field_index("title")
    pq.write_table(items.set_column(at, items.schema.field(at), titles), folder / ITEMS_FILE)


def config_of(bert: Path, *overrides: str) -> RunConfig:
    """Return the settings of a tiny run that reads texts."""
    text = (f'text.weights="{bert}"', "text.max_tokens=16", "text.texts_per_step=4", "text.rank=2")
    return builders.tiny_config(*text, *overrides, preset="base")


def texts_of(model: SequenceModel) -> ItemTexts:
    """Return the text part of a model that has one."""
    assert model.items.texts is not None
    return model.items.texts


def test_a_text_is_a_part_of_its_items_vector(bert: Path, dataset: Path) -> None:
    """Vectors are identity plus the projected text; row 0 and items without a text get nothing."""
    items = read_items(dataset)
    at = items.schema.get_field_index("title")
    titles = [None, *items["title"].to_pylist()[1:]]
    pq.write_table(items.set_column(at, items.schema.field(at), [titles]), dataset / ITEMS_FILE)
    config = config_of(bert)
    model = build_model(read_inputs(dataset, config), config).eval()
    part = texts_of(model)()
    assert torch.equal(model.items(), model.items.identity.weight + part)
    assert not part[:2].any()
    assert part[2:].abs().sum(1).min() > 0


def test_without_its_identity_an_item_is_its_text(bert: Path, dataset: Path) -> None:
    """The share of items without is drawn anew each time, in training only."""
    config = config_of(bert, "text.id_dropout=0.5")
    model = build_model(read_inputs(dataset, config), config).train()
    identity = torch.ones(13, 8)
    torch.manual_seed(3)
    drawn = torch.stack([texts_of(model).with_identity(identity)[1:] for _ in range(400)])
    assert set(drawn.flatten().tolist()) == {0.0, 1.0}
    assert drawn.mean() == pytest.approx(0.5, abs=0.03)
    assert torch.equal(texts_of(model.eval()).with_identity(identity), identity)


@pytest.mark.parametrize("policy", POLICIES)
def test_every_policy_trains_and_comes_back_as_it_was(
    bert: Path, dataset: Path, tmp_path: Path, policy: TextPolicy
) -> None:
    """What was validated is what is loaded: the same item vectors, and the same reader."""
    config = config_of(bert, f'text.policy="{policy}"', "loop.max_epochs=2")
    state = train(read_inputs(dataset, config), config, tmp_path / "run")
    loaded = load_run(tmp_path / "run")
    assert np.isfinite([row["loss"] for row in state.history]).all()
    texts = texts_of(loaded.model)
    read = texts.new_rows(loaded.inputs.facts.texts[1:])
    assert torch.allclose(read, texts()[1:], atol=1e-5)
    start = texts_of(build_model(loaded.inputs, config))
    moved = not torch.allclose(start.vectors, texts.vectors, atol=1e-7)
    assert moved == (policy not in ("frozen", "head"))


def test_a_step_reads_only_so_many_texts_and_targets_first(bert: Path, dataset: Path) -> None:
    """Whatever the batch holds; the vectors of the others stay those of the epoch's start."""
    config = config_of(bert, 'text.policy="full"')
    learner = make_learner(read_inputs(dataset, config), config)
    texts = texts_of(learner.model).train()
    before = texts()
    with torch.no_grad():
        for parameter in texts.encoder.parameters():  # type: ignore[union-attr]  # it learns
            parameter.add_(0.3)
    with texts.reading(torch.tensor([0, 3, 3, 5]), torch.tensor([3, 7, 8, 9])):
        changed = (texts() - before).abs().sum(1) > 0
    assert changed.sum() == 4
    assert changed[[3, 5]].all()
    assert not changed[[0, 1, 2, 4, 6, 10, 11, 12]].any()
    assert torch.equal(texts(), before)
    texts.refresh()
    assert ((texts() - before).abs().sum(1) > 0)[1:].all()


def test_the_language_model_learns_at_its_own_rate(bert: Path, dataset: Path) -> None:
    """Its rate over the run's stays what it was through the schedule."""
    config = config_of(
        bert, 'text.policy="full"', "optim.learning_rate=0.01", "text.learning_rate=0.0001"
    )
    learner = make_learner(read_inputs(dataset, config), config)
    reader = {id(weight) for weight in texts_of(learner.model).encoder.parameters()}  # type: ignore[union-attr]  # it learns
    scales = {
        id(weight) in reader: group["rate_scale"]
        for group in learner.optimizer.param_groups
        for weight in group["params"]
    }
    assert scales == {False: 1.0, True: pytest.approx(0.01)}


def test_items_that_nobody_acted_on_are_found_by_their_texts(bert: Path, tmp_path: Path) -> None:
    """Neighbours in the cycle share a word, so an unseen one is where its words are."""
    whole, _ = builders.cyclic_dataset(tmp_path)
    named(whole)
    hold_items_out(whole, 0.25, 3, tmp_path / "part")
    config = config_of(
        bert,
        "model.dim=16",
        "text.id_dropout=0.5",
        "optim.learning_rate=0.01",
        "loop.max_epochs=40",
        "loop.patience=40",
    )
    train(read_inputs(tmp_path / "part", config), config, tmp_path / "run")
    figures = cold_item_figures(load_run(tmp_path / "run"), whole)
    found = figures["among_new"]
    assert found["num_candidates"] == figures["num_new_items"] == 3
    # The mean NDCG of three in random order is (1 + 0.63 + 0.5) / 3 = 0.71.
    assert found["run"]["ndcg@10"] > 0.85
    assert figures["among_all"]["num_candidates"] == 12


def test_texts_that_are_not_there_are_an_error(bert: Path, tmp_path: Path) -> None:
    """Rather than a run that reads nothing and looks as if it had."""
    folder, _ = builders.cyclic_dataset(tmp_path)
    config = config_of(bert)
    with pytest.raises(TrainingError, match=r"text\.weights = .*no item of .*dataset has a title"):
        build_model(read_inputs(folder, config), config)


def test_what_was_read_is_read_once(bert: Path, dataset: Path) -> None:
    """The second build finds the vectors beside the dataset, and they are the same."""
    config = config_of(bert)
    inputs = read_inputs(dataset, config)
    first = make_item_texts(config.text, inputs.facts.texts, 8, dataset / "text_vectors")
    files = sorted((dataset / "text_vectors").rglob("*"))
    again = make_item_texts(config.text, inputs.facts.texts, 8, dataset / "text_vectors")
    assert torch.equal(first.vectors, again.vectors)
    assert sorted((dataset / "text_vectors").rglob("*")) == files != []


def test_texts_that_are_read_anew_are_read_in_other_words(bert: Path, dataset: Path) -> None:
    """With half of the words left out a text has another vector, and the run's seed says which."""
    config = config_of(bert, 'text.policy="full"', "text.word_dropout=0.5")
    texts = texts_of(make_learner(read_inputs(dataset, config), config).model).eval()
    texts.training = True
    seen = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        with texts.reading(torch.arange(1, 13)):
            seen.append(texts()[1:])
    assert torch.equal(seen[0], seen[1])
    assert not torch.allclose(seen[0], seen[2])


def test_a_policy_that_reads_once_takes_no_augmentation(bert: Path) -> None:
    """It would be a setting without any effect."""
    with pytest.raises(TrainingError, match=r"text\.word_dropout = 0\.5 .* text\.policy = 'head'"):
        config_of(bert, "text.word_dropout=0.5")


def test_a_batch_without_texts_reads_nothing(bert: Path, dataset: Path) -> None:
    """Few items have a title somewhere; a step among the others is a step all the same."""
    config = config_of(bert, 'text.policy="full"')
    texts = texts_of(make_learner(read_inputs(dataset, config), config).model).train()
    with texts.reading(torch.zeros(3, dtype=torch.int64)):
        assert torch.equal(texts(), texts.project(texts.vectors))
    assert not texts.new_rows([""]).any()


def test_the_average_and_what_learns_both_read_anew(bert: Path, dataset: Path) -> None:
    """What is validated is an average; the next epoch starts from what was learned."""
    config = config_of(bert, 'text.policy="full"', "text.learning_rate=0.01", "optim.ema_decay=0.5")
    inputs = read_inputs(dataset, config)
    learner = make_learner(inputs, config)
    start = texts_of(learner.model).vectors.clone()
    with torch.no_grad():
        for model in (learner.model, learner.validated):
            for parameter in texts_of(model).encoder.parameters():  # type: ignore[union-attr]  # it learns
                parameter.add_(0.3)
    learner.refresh_texts()
    for model in (learner.model, learner.validated):
        assert not torch.allclose(texts_of(model).vectors, start)


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        ('text.policy="head"', "tuned its language model by text.policy = 'full'"),
        ("text.max_tokens=8", "text.max_tokens = 16, this run has 8"),
    ],
)
def test_vectors_of_another_reader_are_not_taken_over(
    bert: Path, dataset: Path, tmp_path: Path, other: str, reason: str
) -> None:
    """They would stand in another space than what this run reads of a new item."""
    config = config_of(bert, 'text.policy="full"', "loop.max_epochs=1")
    train(read_inputs(dataset, config), config, tmp_path / "run")
    start = f'pretrain.init_from="{tmp_path / "run"}"'
    going_on = config_of(bert, 'text.policy="full"', start, other)
    with pytest.raises(TrainingError, match=reason):
        build_model(read_inputs(dataset, going_on), going_on)


def test_what_is_frozen_freezes_the_language_model_too(bert: Path, dataset: Path) -> None:
    """Only the heads learn, whatever the text's own policy."""
    config = config_of(bert, 'text.policy="full"', 'pretrain.freeze="head-only"')
    model = build_model(read_inputs(dataset, config), config)
    freeze(model, config.pretrain, 1)
    assert not any(weight.requires_grad for weight in texts_of(model).parameters())
    freeze(model, replace(config.pretrain, freeze="none"), 1)
    assert any(weight.requires_grad for weight in texts_of(model).encoder.parameters())  # type: ignore[union-attr]  # it learns
