"""What each layer does in one step of a training: gradient, residual stream, movement, change of weights.

Reading never changes the training: the stream is read in a forward pass of its own, without dropout, through a
`Trace`, from the weights that the step's loss comes from and on the step's batch.

Legend: B batch, T length, D model width.
"""

import copy

import torch
from torch import Tensor
from torch.nn.utils import get_total_norm

from transformer.data.batches import Batch
from transformer.model import Transformer
from transformer.trace import Trace
from transformer.vocabulary import PAD


def layer_names(model: Transformer) -> tuple[str, ...]:
    """The layers by their names in the trace: ``encoder.0``, ..., ``decoder.0``, ..."""
    return tuple(
        f"{stack}.{index}"
        for stack, layers in (("encoder", model.encoder), ("decoder", model.decoder))
        for index in range(len(layers))
    )


def layer_parameters(model: Transformer) -> list[list[Tensor]]:
    """The parameters of each layer, in the order of `layer_names`."""
    return [list(layer.parameters()) for layer in (*model.encoder, *model.decoder)]


def norms_of(tensors: list[list[Tensor]]) -> Tensor:
    """Euclidean norm of each list of tensors taken as one vector."""
    return torch.tensor([get_total_norm(layer) for layer in tensors])


def gradient_norms(model: Transformer) -> tuple[float, ...]:
    """Euclidean norm of the gradient of each layer."""
    gradients = [[p.grad for p in layer if p.grad is not None] for layer in layer_parameters(model)]
    return tuple(norms_of(gradients).tolist())


@torch.no_grad()
def stream_sizes(model: Transformer, batch: Batch) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Size of the residual stream after each layer, and how far each layer moves it.

    The size is the root mean square over the elements of all real tokens. The movement is
    ``||after - before|| / ||before||``, with ``before`` and ``after`` the stream around the whole layer. Under
    pre-norm and without norm the difference is exactly the sum of what the sub-layers add. Under post-norm and DeepNorm
    the stream is normalised on its way, and that belongs to the movement; both ends are then of about one size, and
    the movement says how much of a layer's output its input does not explain.
    """
    was_training = model.training
    model.eval()
    trace = Trace(keep=("*.self_attention.residual_before", "*.feed_forward.residual_after"))
    model(batch.source, batch.target_in, trace)
    model.train(was_training)
    real = {"encoder": batch.source != PAD, "decoder": batch.target_in != PAD}
    streams, movements = [], []
    for name in layer_names(model):
        rows = real[name.split(".")[0]]
        before = trace[f"{name}.self_attention.residual_before"][rows]  # (real tokens, D)
        after = trace[f"{name}.feed_forward.residual_after"][rows]
        streams.append(after.square().mean().sqrt().item())
        movements.append(((after - before).norm() / before.norm()).item())
    return tuple(streams), tuple(movements)


class WeightsBefore:
    """The layers' weights before a step, to tell how far the step moves them.

    Args:
        model: Model about to be changed in place.
    """

    def __init__(self, model: Transformer) -> None:
        self._model = model
        self._before = copy.deepcopy([[p.detach() for p in layer] for layer in layer_parameters(model)])

    @torch.no_grad()
    def relative_changes(self) -> tuple[float, ...]:
        """``||W - W before|| / ||W before||`` of each layer, all its parameters as one vector."""
        changes = [
            [now - before for now, before in zip(layer, layer_before, strict=True)]
            for layer, layer_before in zip(layer_parameters(self._model), self._before, strict=True)
        ]
        return tuple((norms_of(changes) / norms_of(self._before)).tolist())
