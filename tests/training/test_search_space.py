"""The space of a search: what it holds, and the mistakes that it refuses before anything trains."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from training.config import RunConfig, TrainingError, config_to_dict, load_run_config
from training.search.space import Axis, Choices, Range, grid, overrides, toml_document
from training.search.space_file import read_space


def settings(texts: Sequence[str]) -> RunConfig:
    """Return the base preset with texts over it."""
    return load_run_config("base", None, texts)


def read(folder: Path, text: str, *given: str) -> tuple[Axis, ...]:
    """Read a space of that text."""
    path = folder / "space.toml"
    path.write_text(text, encoding="utf-8")
    return read_space(path, settings, given)


def test_a_space_has_choices_and_ranges_of_the_settings_types(tmp_path: Path) -> None:
    """The low of a float setting may be written as 0; the bounds of a whole one stay whole."""
    axes = read(
        tmp_path,
        "[model]\n"
        "dropout = { low = 0, high = 0.5, step = 0.1 }\n"
        "num_blocks = { low = 1, high = 4 }\n"
        'block = ["ligr", "hstu"]\n'
        "[optim]\n"
        "learning_rate = { low = 1e-4, high = 1e-2, log = true }\n",
    )
    assert axes == (
        Range("model.dropout", 0.0, 0.5, step=0.1),
        Range("model.num_blocks", 1, 4),
        Choices("model.block", ("ligr", "hstu")),
        Range("optim.learning_rate", 1e-4, 1e-2, log=True),
    )
    assert isinstance(axes[0], Range)
    assert isinstance(axes[0].low, float)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no setting varies; name one"),
        ("model.dim = 64", r"model.dim = 64 does not vary; write a list of choices or"),
        ("dim = [1, 2]", "'dim' is no section; write section.key"),
        ('"model.dim" = [32, 64]', "'model.dim' is no section; write section.key = … without"),
        ("model.dimm = [1, 2]", "model.dimm is not a setting; there are"),
        ('model.dim = ["a"]', "model.dim = 'a' must be a int"),
        ("model.dim = [31, 64]", "model.dim = 31 must be a multiple of model.num_heads = 2"),
        ("model.dim = []", "must list each choice once"),
        ("model.dim = [32, 32]", "must list each choice once"),
        ("model.dim = [[32]]", r"choice \[32\] must be a single value"),
        ("model.dropout = { low = 0.1 }", "model.dropout: high is missing"),
        ("model.dropout = { low = 0.1, hi = 0.2 }", "'hi' is not part of a range; there are low"),
        ("model.dropout = { low = 0.4, high = 0.2 }", "low = 0.4 must be below high = 0.2"),
        ("model.dropout = { low = 0.4, high = 0.4 }", "low = 0.4 must be below high = 0.4"),
        ("model.dropout = { low = 0.1, high = inf }", "high = inf must be a finite number"),
        ("model.dropout = { low = 0.1, high = 1.5 }", r"model.dropout = 1.5 must be in \[0, 1\)"),
        ("model.dropout = { low = true, high = 0.5 }", "low = True must be a finite number"),
        ("model.dropout = { low = 0.0, high = 0.5, log = true }", "low = 0.0 must be above 0"),
        ("model.dropout = { low = 0.0, high = 0.5, log = 1 }", "log = 1 must be true or false"),
        ("model.dropout = { low = 0.1, high = 0.5, log = true, step = 0.1 }", "drop one"),
        ("model.dropout = { low = 0.1, high = 0.5, step = 0 }", "step = 0 must be above 0"),
        ("model.dropout = { low = 0.0, high = 0.5, step = 0.2 }", "write high = 0.4"),
        ("model.num_blocks = { low = 1, high = 4, step = 1.5 }", "step = 1.5 must be a whole"),
        ("model.num_blocks = { low = 1.0, high = 4 }", "model.num_blocks = 1.0 must be a int"),
        ("split.protocol = ['temporal']", "cannot vary in a search: the trials would be measured"),
        ("loop.seed = [1, 2]", "cannot vary in a search: the best seed is luck"),
        ("optim.beta1 = [0.8, 0.9]", "optim.beta1 is set by --set too; drop one of the two"),
        ("model.dim = ", "the space cannot be read"),
    ],
)
def test_a_mistake_in_a_space_names_the_setting_and_the_way_out(
    tmp_path: Path, text: str, message: str
) -> None:
    """Hours of trials must not end in a typing error."""
    with pytest.raises(TrainingError, match=message):
        read(tmp_path, text, "optim.beta1=0.9")


def test_a_missing_space_is_named(tmp_path: Path) -> None:
    """The file is the user's own."""
    with pytest.raises(TrainingError, match=r"space.toml: the space cannot be read"):
        read_space(tmp_path / "space.toml", settings)


def test_settings_that_only_fit_together_may_vary_together(tmp_path: Path) -> None:
    """54 over the preset's two heads is odd, over three heads even; depth belongs to the GRU."""
    heads = read(tmp_path, "model.dim = [54, 48]\nmodel.num_heads = [1, 3]")
    family = read(tmp_path, 'model.depth = [1, 2]\nmodel.family = ["gru", "lstm"]')
    assert [axis.name for axis in heads] == ["model.dim", "model.num_heads"]
    assert [axis.name for axis in family] == ["model.depth", "model.family"]


def test_a_grid_is_every_combination() -> None:
    """2 blocks × 3 rates of dropout, the last varying fastest and without lost bits."""
    axes = (Range("model.num_blocks", 1, 2), Range("model.dropout", 0.1, 0.3, step=0.1))
    assert [tuple(values.values()) for values in grid(axes)] == [
        (1, 0.1), (1, 0.2), (1, 0.3), (2, 0.1), (2, 0.2), (2, 0.3),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "axis",
    [Range("optim.learning_rate", 1e-4, 1e-2), Range("model.dim", 8, 64, log=True)],
)
def test_a_grid_of_a_continuous_range_is_refused(axis: Axis) -> None:
    """Between two bounds lie too many values to try each."""
    with pytest.raises(TrainingError, match=f"{axis.name}: a grid needs a list of values, or a"):
        grid([axis])


def test_the_family_is_set_before_its_settings() -> None:
    """Otherwise depth would be refused as a stranger to the preset's family."""
    config = settings(overrides({"model.depth": 2, "model.family": "gru"}))
    assert config_to_dict(config.model)["depth"] == 2
    assert config.model.family == "gru"


def test_settings_survive_their_toml(tmp_path: Path) -> None:
    """The best settings are read back by train --config as they were, over any preset."""
    config = settings(['model.family="gru"', "optim.learning_rate=1e-5", 'model.tasks=["click"]'])
    path = tmp_path / "best.toml"
    path.write_text(toml_document(config_to_dict(config)), encoding="utf-8")
    assert load_run_config("time", path) == config
