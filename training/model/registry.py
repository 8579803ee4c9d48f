"""Bodies by family: the one place that knows which network a settings class means."""

from collections.abc import Callable, Mapping

from torch import nn

from training.model.classic import plain_body
from training.model.recurrent import RecurrentBody
from training.model.transformer import transformer_body
from training.model_config import (
    Bert4RecConfig,
    ModelConfig,
    RecurrentConfig,
    SasrecConfig,
    TransformerConfig,
)

BODIES: Mapping[type[ModelConfig], Callable[..., nn.Module]] = {
    TransformerConfig: transformer_body,
    SasrecConfig: plain_body,
    Bert4RecConfig: plain_body,
    RecurrentConfig: RecurrentBody,
}


def make_body(config: ModelConfig) -> nn.Module:
    """Build the body of a family; see `training.model.attention.Body` for what it does."""
    return BODIES[type(config)](config)
