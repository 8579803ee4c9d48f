"""Settings: strict in names and types, layered in a stated order."""

from pathlib import Path

import pytest

from training.config import (
    RunConfig,
    TrainingError,
    config_from_dict,
    config_to_dict,
    load_run_config,
    preset_names,
)
from training.model_config import RecurrentConfig


@pytest.mark.parametrize("preset", preset_names())
def test_every_preset_loads(preset: str) -> None:
    """A preset with a misspelt name would only fail at its user's."""
    assert isinstance(load_run_config(preset), RunConfig)


def test_a_value_on_the_command_line_beats_the_file_beats_the_preset(tmp_path: Path) -> None:
    """The nearest to the person wins."""
    file = tmp_path / "c.toml"
    file.write_text("[model]\ndim = 32\nwindow_len = 20\n")
    config = load_run_config("demo", file, ["model.dim=16"])
    assert (config.model.dim, config.model.window_len, config.loop.batch_size) == (16, 20, 32)


def test_a_config_survives_its_dictionary() -> None:
    """Checkpoints and runs store it so."""
    config = load_run_config("time")
    assert config_from_dict(RunConfig, config_to_dict(config)) == config


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("dim=3", "section.key=value"),
        ("model.dims=3", r"model\.dims is not a setting; there are block"),
        ("model.dim=3.5", r"model\.dim = 3\.5 must be a int"),
        ("model.request_time=maybe", "must be one of known, unknown"),
        ("model=3", "section.key=value"),
        ("model.num_blocks=0", r"model\.num_blocks = 0 must be at least 1"),
        ("model.window_len=0", r"model\.window_len = 0 must be at least 1"),
        ("loop.batch_size=-3", r"loop\.batch_size = -3 must be at least 1"),
        ("model.num_heads=3", r"model\.dim = 64 must be a multiple of model\.num_heads = 3"),
        ("model.dropout=1.0", "must be in "),
        ("model.temperature=0.0", "must be above 0"),
        ("optim.learning_rate=nan", "must be at least 0"),
        ("model.family=mamba", r"model\.family = 'mamba' must be one of ligr, sasrec"),
        ("model.tasks=click", r"model\.tasks = 'click' must be a list"),
        ('model.tasks=["buy"]', r"model\.tasks = 'buy' must be one of next-item, click, watch"),
        ('model.tasks=["click", "click"]', "must name each task once"),
        ("optim.beta2=1.0", r"optim\.beta2 = 1\.0 must be in \[0, 1\)"),
        ("pretrain.crop_share=1.5", r"pretrain\.crop_share = 1\.5 must be in \[0, 1\]"),
        ("split.session_hours=inf", r"split\.session_hours = inf must be above 0, and finite"),
        ("model.distances=true", r"model\.distances = true needs model\.places = true"),
        ("split.train_share=0", r"split\.train_share = 0\.0 must be above 0"),
        ("pretrain.mask_share=1.5", r"pretrain\.mask_share = 1\.5 must be in \[0, 1\)"),
    ],
)
def test_what_is_no_setting_is_refused(override: str, message: str) -> None:
    """A misspelt setting must not train the default silently."""
    with pytest.raises(TrainingError, match=message):
        load_run_config("base", None, [override])


def test_another_family_drops_the_settings_that_it_does_not_have() -> None:
    """`--set model.family=gru` over a preset of another family keeps what both have."""
    config = load_run_config("base", None, ["model.family=gru", "model.hidden_dim=32"])
    assert type(config.model) is RecurrentConfig
    assert (config.model.dropout, config.model.hidden_dim) == (0.25, 32)
