"""Bodies by family: the one place that knows which network a settings class means."""

from collections.abc import Callable, Mapping

from torch import nn

from training.model.classic import PlainBody
from training.model.recurrent import RecurrentBody
from training.model.transformer import TransformerBody
from training.model_config import Bert4RecConfig, ModelConfig, RecurrentConfig, SasrecConfig
from training.model_config import TransformerConfig as LigrConfig

BODIES: Mapping[type[ModelConfig], Callable[..., nn.Module]] = {
    LigrConfig: TransformerBody,
    SasrecConfig: PlainBody,
    Bert4RecConfig: PlainBody,
    RecurrentConfig: RecurrentBody,
}


def make_body(config: ModelConfig) -> nn.Module:
    """Build the body of a family; see `training.model.attention.Body` for what it does."""
    return BODIES[type(config)](config)
