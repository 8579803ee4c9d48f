"""The bodies of SASRec and BERT4Rec: plain pre-norm Transformers, causal and both ways."""

from torch import Tensor, nn
from torch.nn import functional

from training.model.attention import Attention, BlockBody, last_positions
from training.model_config import Bert4RecConfig, SasrecConfig


class PlainBlock(nn.Module):
    """Attention and a position-wise network, each normalised before and added to its input."""

    def __init__(self, dim: int, num_heads: int, dropout: float, *, bert: bool) -> None:
        super().__init__()
        hidden = 4 * dim if bert else dim
        self.bert = bert
        self.attention_norm = nn.LayerNorm(dim)
        self.attention = Attention(dim, num_heads)
        self.feed_norm = nn.LayerNorm(dim)
        self.feed_in = nn.Linear(dim, hidden)
        self.feed_out = nn.Linear(hidden, dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Map (batch, window, dim) to (batch, queries, dim); mask (1, batch, queries, window)."""
        tail = last_positions(x, mask.shape[2])
        keys = self.attention_norm(x)
        tail = tail + self.dropout(self.attention(last_positions(keys, mask.shape[2]), keys, mask))
        fed = self.feed_in(self.feed_norm(tail))
        fed = functional.gelu(fed) if self.bert else self.dropout(functional.relu(fed))
        result: Tensor = tail + self.dropout(self.feed_out(fed))
        return result


def plain_body(config: SasrecConfig | Bert4RecConfig) -> BlockBody:
    """Build plain blocks, as wide within as the family has them."""
    bert = isinstance(config, Bert4RecConfig)
    blocks = (
        PlainBlock(config.dim, config.num_heads, config.dropout, bert=bert)
        for _ in range(config.num_blocks)
    )
    return BlockBody(blocks, config.dim)
