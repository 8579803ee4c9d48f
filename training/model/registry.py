"""Bodies by family: the one place that knows which network a settings class means."""

from collections.abc import Callable, Mapping

from torch import Tensor, nn

from training.model.classic import plain_body
from training.model.language import language_body
from training.model.recurrent import RecurrentBody
from training.model.transformer import transformer_body
from training.model_config import (
    Bert4RecConfig,
    LanguageModelConfig,
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


def make_body(config: ModelConfig, learned: Mapping[str, Tensor] | None = None) -> nn.Module:
    """Build the body of a family; see `training.model.attention.Body` for what it does.

    `learned` is the state that is loaded next, if there is one: it knows sizes that settings leave
    to a checkpoint.
    """
    if isinstance(config, LanguageModelConfig):
        return language_body(config, learned)
    return BODIES[type(config)](config)
