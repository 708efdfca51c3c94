"""Position-wise feed-forward network (section 3.3): FFN(x) = max(0, x W1 + b1) W2 + b2."""

from torch import Tensor, nn

from transformer.trace import UNTRACED, Scope


class FeedForward(nn.Module):
    """The same two-layer network at every position: widens to d_ff and narrows again.

    Args:
        d_model: Width D of input and output.
        d_ff: Width of the hidden layer.
    """

    def __init__(self, *, d_model: int, d_ff: int) -> None:
        super().__init__()
        self.widen = nn.Linear(d_model, d_ff)
        self.narrow = nn.Linear(d_ff, d_model)

    def forward(self, x: Tensor, scope: Scope = UNTRACED) -> Tensor:
        """Map (B, T, D) to (B, T, D); the trace sees the hidden activations (B, T, d_ff)."""
        hidden = scope("hidden", self.widen(x).relu())
        return self.narrow(hidden)
