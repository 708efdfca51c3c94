"""The one way to look inside a forward pass: read and edit any named tensor.

A `Trace` is passed down the call. Each module offers its tensors under a name; the trace keeps those that
were asked for and may put another tensor in a tensor's place:

    trace = Trace(keep=["*.weights"], edits={"encoder.0.self_attention.weights": uniform})
    logits = model(source_ids, target_ids, trace)
    trace["encoder.1.self_attention.weights"]  # (B, H, S, S)

Nothing is stored on modules, so any number of threads can trace one model at once, each with a trace of its own.
The tensors stay part of the autograd graph: under `torch.enable_grad` a recorded tensor can be differentiated.

Names: ``{encoder|decoder}.{layer}.{self_attention|cross_attention|feed_forward}.{what}`` with what one of
queries, keys, values, scores, position_bias, mask, weights, head_outputs, hidden, output, residual_before,
residual_after; ``{encoder|decoder}.{embeddings|positions|output}``; and ``logits``.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from fnmatch import fnmatchcase

from torch import Tensor

Edit = Callable[[Tensor], Tensor]


class Trace:
    """Record of one forward pass, and what to change in it.

    Args:
        keep: Glob patterns of the names to record; everything by default.
        edits: For a tensor's full name, a function from the tensor to the one that takes its place. What is
            recorded is the tensor after the edit.
    """

    def __init__(self, keep: str | Iterable[str] = "*", edits: Mapping[str, Edit] | None = None) -> None:
        self._keep = (keep,) if isinstance(keep, str) else tuple(keep)
        self._edits = dict(edits or {})
        self._unused_edits = set(self._edits)
        self.tensors: dict[str, Tensor] = {}

    def visit(self, name: str, tensor: Tensor) -> Tensor:
        """Offer `tensor` under `name`; returns the tensor the computation goes on with.

        Raises:
            ValueError: If an edit returns a tensor of another shape.
        """
        edit = self._edits.get(name)
        if edit is not None:
            edited = edit(tensor)
            if edited.shape != tensor.shape:
                raise ValueError(
                    f"The edit of {name} returned shape {tuple(edited.shape)}; "
                    f"it must keep the shape {tuple(tensor.shape)}."
                )
            self._unused_edits.discard(name)
            tensor = edited
        if any(fnmatchcase(name, pattern) for pattern in self._keep):
            self.tensors[name] = tensor
        return tensor

    def check_edits_used(self) -> None:
        """Raise if an edit named a tensor that the pass never offered, which is a misspelt name.

        Raises:
            ValueError: Naming the edits that were not used.
        """
        if self._unused_edits:
            raise ValueError(f"No tensor of this model is named {', '.join(sorted(self._unused_edits))}.")

    def __getitem__(self, name: str) -> Tensor:
        return self.tensors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.tensors)

    def __len__(self) -> int:
        return len(self.tensors)


class Scope:
    """A trace seen from inside a module: names are relative to the module's place in the model.

    The scope of no trace does nothing, so that modules need no case distinction.
    """

    __slots__ = ("_prefix", "_trace")

    def __init__(self, trace: Trace | None, prefix: str = "") -> None:
        self._trace = trace
        self._prefix = prefix

    @property
    def active(self) -> bool:
        """Whether somebody looks."""
        return self._trace is not None

    def within(self, name: str) -> "Scope":
        """The scope of a part called `name`."""
        return Scope(self._trace, f"{self._prefix}{name}.") if self._trace is not None else self

    def __call__(self, name: str, tensor: Tensor) -> Tensor:
        """Offer a tensor to the trace, if there is one, and return the tensor to go on with."""
        return tensor if self._trace is None else self._trace.visit(self._prefix + name, tensor)


UNTRACED = Scope(None)
