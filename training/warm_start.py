"""Weights of another run, or of this one: taken over where they fit, refused with the reason."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from training.checkpoints import BEST_FILE, load_state
from training.config import READ_ONCE, RunConfig, TextConfig, TrainingError, config_to_dict
from training.model.sequence_model import SequenceModel

log = logging.getLogger(__name__)


def warm_start(model: SequenceModel, config: RunConfig, data_sha256: str) -> None:
    """Take over every weight of `pretrain.init_from` that has the same name and shape.

    The body's must be among them; heads and query conditions that the other run did not have keep
    their start, and so do rates, which are counted. Raises TrainingError when the other run learned
    from other data or under another split: its items would be others, or it would know this run's
    future.
    """
    run = Path(config.pretrain.init_from)
    own, state = model.state_dict(), load_state(run / BEST_FILE)
    if state.data_sha256 != data_sha256:
        raise TrainingError(f"pretrain.init_from: {run} was trained on other data")
    theirs, ours = (_cases_of(each["split"]) for each in (state.config, config_to_dict(config)))
    if theirs != ours:
        raise TrainingError(
            f"pretrain.init_from: {run} was trained under the split {theirs}, this run has {ours}; "
            "it may have learned from this run's targets"
        )
    _check_texts(run, state.config.get("text", {}), config.text)
    shared = {
        name: weight
        for name, weight in state.model.items()
        if name in own and own[name].shape == weight.shape and ".rates." not in name
    }
    missing = [
        name
        for name in own
        if name.startswith(("body.", "items."))
        # A language model that the other run did not tune starts from its checkpoint.
        and not name.startswith("items.texts.encoder.")
        and name not in shared
    ]
    if missing:
        raise TrainingError(
            f"pretrain.init_from: {run} has no fitting {missing[0]}; both runs need the same "
            "model family, sizes and items"
        )
    model.load_state_dict(own | shared)
    log.info("%d of %d weights from %s", len(shared), len(own), run)


def _check_texts(run: Path, theirs: Mapping[str, Any], ours: TextConfig) -> None:
    """Raise TrainingError unless the other run's text vectors are ones that this run could read."""
    if not ours.weights or not theirs.get("weights"):
        return
    for name in ("weights", "pooling", "max_tokens"):
        if theirs[name] != getattr(ours, name):
            raise TrainingError(
                f"pretrain.init_from: {run} has text.{name} = {theirs[name]!r}, this run has "
                f"{getattr(ours, name)!r}; its text vectors would be those of another reader"
            )
    if theirs["policy"] not in READ_ONCE and theirs["policy"] != ours.policy:
        raise TrainingError(
            f"pretrain.init_from: {run} tuned its language model by text.policy = "
            f"{theirs['policy']!r}; go on with the same policy, or start from a run that did not"
        )


def load_weights(model: SequenceModel, weights: dict[str, Any], run: Path) -> None:
    """Load a run's weights; raises TrainingError when its items have other facts by now."""
    try:
        model.load_state_dict(weights)
    except RuntimeError as exc:
        reason = str(exc).splitlines()[-1].strip()
        raise TrainingError(f"{run}: the dataset's items have changed since: {reason}") from exc


def _cases_of(split: dict[str, Any]) -> dict[str, Any]:
    """Return the settings that decide what is a target; a share of the users does not."""
    return {name: value for name, value in split.items() if name != "train_share"}
