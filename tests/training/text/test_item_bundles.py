"""From a run that reads texts to a bundle that the service loads."""

from pathlib import Path

import numpy as np
import pytest

from service.bundle_loader import load_bundle
from tests.training import builders
from tests.training.text.checkpoints import save_bert
from tests.training.text.test_items import config_of, named
from training.config import TextPolicy
from training.export import export_bundle
from training.runs import load_run, read_inputs
from training.train import train

pytestmark = pytest.mark.integration


@pytest.mark.parametrize("policy", ["head", "lora", "prefix", "adapter"])
def test_the_service_reads_new_items_as_the_run_does(tmp_path: Path, policy: TextPolicy) -> None:
    """Rows of texts alone are the same from torch and from the loaded bundle; old rows too."""
    bert = save_bert(tmp_path / "bert")
    dataset, _ = builders.cyclic_dataset(tmp_path)
    named(dataset)
    config = config_of(bert, f'text.policy="{policy}"', "loop.max_epochs=1")
    train(read_inputs(dataset, config), config, tmp_path / "run")
    bundle, manifest = export_bundle(tmp_path / "run", tmp_path / "bundles")
    loaded = load_bundle(bundle)
    assert manifest.text is not None
    assert loaded.text_encoder is not None
    new = ["green steel", "hot hat glove", "cup"]
    run = load_run(tmp_path / "run").model
    expected = run.items.texts.new_rows(new).detach().numpy()  # type: ignore[union-attr]  # it reads texts
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    found = loaded.text_encoder.encode(new)
    assert found.shape == (3, manifest.features.dim)
    assert (found * expected).sum(1).min() >= min(0.97, manifest.text.min_cosine - 0.02)
    assert np.linalg.norm(found, axis=1) == pytest.approx(np.ones(3), abs=1e-3)
