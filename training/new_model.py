"""A run's model before it has learned: the network, and what a language model says of the items."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from training.config import RunConfig, TrainingError
from training.data import TEXT_CACHE
from training.items import ItemFacts
from training.model.sequence_model import SequenceModel

# Of a model whose language model follows no schedule: there is none, or it is only read back.
NO_SCHEDULE = 1_000


def new_model(
    config: RunConfig,
    facts: ItemFacts,
    dataset: Path,
    *,
    num_steps: int = NO_SCHEDULE,
    learned: Mapping[str, Any] | None = None,
) -> SequenceModel:
    """Build a run's model with the weights that torch's seed gives, its texts read if it has any.

    `learned` are the weights that are to be loaded into it: their shapes say what the body of a
    language model is, whose checkpoint may be gone by then.

    Raises TrainingError where there is no text, or nothing to read it by.
    """
    model = SequenceModel(config.model, facts, learned)
    if not config.text.weights:
        return model
    if not any(facts.texts):
        raise TrainingError(
            f"text.weights = {config.text.weights!r}: no item of {dataset} has a title, a text or "
            "a category to read; leave the setting out, or import what the items are called"
        )
    try:
        from training.text.items import make_item_texts  # noqa: PLC0415  # an extra of its own
    except ModuleNotFoundError as exc:
        raise TrainingError(
            f"text.weights = {config.text.weights!r} needs {exc.name}: "
            "install the extra `lm`, pip install 'sojourn[lm]'"
        ) from exc
    model.items.texts = make_item_texts(
        config.text, facts.texts, config.model.dim, dataset / TEXT_CACHE, num_steps=num_steps
    )
    return model
