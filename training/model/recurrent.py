"""Recurrent bodies: GRU, LSTM and the simple network, over windows whose padding they never see."""

import torch
from torch import Tensor, nn

from training.model_config import RecurrentConfig

CELLS: dict[str, type[nn.RNNBase]] = {"gru": nn.GRU, "lstm": nn.LSTM, "rnn": nn.RNN}
ONNX_OPS = {"gru": "GRU", "lstm": "LSTM", "rnn": "RNN"}
# ONNX's order of a cell's gates, as places in torch's: (r, z, n) to (z, r, n), (i, f, g, o) to
# (i, o, f, g).
ONNX_GATES = {"gru": (1, 0, 2), "lstm": (0, 3, 1, 2), "rnn": (0,)}


class RecurrentBody(nn.Module):
    """Recurrent layers one over another, and a linear map back to the items' space.

    Padding is on the left, where a recurrence would carry its biases into the first event, so
    windows are turned round to begin at once and turned back afterwards.
    """

    def __init__(self, config: RecurrentConfig) -> None:
        super().__init__()
        self.kind = config.family
        cell = CELLS[config.family]
        self.layers = nn.ModuleList(
            cell(config.dim if place == 0 else config.hidden_dim, config.hidden_dim)  # type: ignore[call-arg,arg-type]  # the base class takes the kind first
            for place in range(config.depth)
        )
        self.dropout = nn.Dropout(config.dropout)
        self.out = nn.Linear(config.hidden_dim, config.dim)

    def forward(self, x: Tensor, mask: Tensor, real: Tensor, num_queries: int) -> Tensor:
        """See Body."""
        window = x.shape[1]
        count = real.sum(dim=1)[:, None]  # (batch, 1)
        places = torch.arange(window, device=x.device)[None]
        state = _take(x, places + (window - count)).transpose(0, 1)  # (window, batch, dim)
        for layer in self.layers:
            state = self.dropout(self._run(layer, state))
        state = _take(state.transpose(0, 1), places + count)
        projected: Tensor = self.out(state[:, window - num_queries :])
        return projected

    def _run(self, layer: nn.Module, state: Tensor) -> Tensor:
        if torch.onnx.is_in_onnx_export():
            return _onnx_layer(self.kind, layer, state)
        # oneDNN has no bfloat16 recurrence on most processors; on a GPU this changes nothing.
        with torch.autocast("cpu", enabled=False):
            output: Tensor = layer(state.float())[0]
        return output


def _onnx_layer(kind: str, layer: nn.Module, state: Tensor) -> Tensor:
    """Return what the layer gives, as ONNX's own operator, whose window length is free.

    torch's translation writes the length of the example into the graph.
    """
    gates = ONNX_GATES[kind]
    weights = [
        _in_onnx_order(getattr(layer, name), gates)
        for name in ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")
    ]
    biases = torch.cat([weights[2], weights[3]])[None]
    hidden_dim = weights[1].shape[1]
    reset = {"linear_before_reset": 1} if kind == "gru" else {}
    output: Tensor = torch.onnx.ops.symbolic(
        ONNX_OPS[kind],
        (state, weights[0][None], weights[1][None], biases),
        attrs={"hidden_size": hidden_dim, **reset},
        dtype=state.dtype,
        shape=(state.shape[0], 1, state.shape[1], hidden_dim),
    )  # (window, 1, batch, hidden_dim)
    return output[:, 0]


def _in_onnx_order(weight: Tensor, gates: tuple[int, ...]) -> Tensor:
    parts = weight.chunk(len(gates))
    return torch.cat([parts[place] for place in gates])


def _take(x: Tensor, places: Tensor) -> Tensor:
    """Return (batch, window, dim) taken in the order of `places`, which go on from the start."""
    window = x.shape[1]
    places = torch.where(places >= window, places - window, places)
    return x.gather(1, places[..., None].expand(-1, -1, x.shape[2]))
