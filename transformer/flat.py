"""All weights of a model in two long vectors: a deep model then costs the optimiser no more kernels than a shallow one.

Adam, clipping, averaging and zeroing do the same to every element. 200 layers have more than 4,000 parameters of a few
kilobytes each, and calling a kernel for each of them takes longer than its arithmetic.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters


class FlatParameters:
    """The parameters of a model laid end to end.

    The model's parameters become views of the vectors; their names, shapes and values stay.

    Args:
        model: Model whose parameters are laid out anew, shared ones once.

    Attributes:
        matrices: All parameters of two and more dimensions.
        others: Biases, and gains of norms.
    """

    def __init__(self, model: nn.Module) -> None:
        named = list(model.named_parameters())
        self._groups = tuple(
            [(name, parameter) for name, parameter in named if (parameter.dim() >= 2) == matrix]
            for matrix in (True, False)
        )
        self.matrices, self.others = (_lay_out([parameter for _, parameter in g]) for g in self._groups)
        self._gradients: dict[nn.Parameter, Tensor] = {}

    @property
    def vectors(self) -> tuple[nn.Parameter, nn.Parameter]:
        """Both vectors."""
        return self.matrices, self.others

    def zero_gradients(self) -> None:
        """Set all gradients to zero. Those of the parameters are views of those of the vectors."""
        if not self._gradients:
            gradients = [torch.zeros_like(vector) for vector in self.vectors]
            for vector, gradient in zip(self.vectors, gradients, strict=True):
                vector.grad = gradient
            pieces = self.by_name(gradients)
            self._gradients = {p: pieces[name] for group in self._groups for name, p in group}
        for vector in self.vectors:
            assert vector.grad is not None
            vector.grad.zero_()
        # Each time, for whoever sets a parameter's gradient to None would else take the parameter out of the training.
        for parameter, gradient in self._gradients.items():
            parameter.grad = gradient

    def by_name(self, vectors: Sequence[Tensor]) -> dict[str, Tensor]:
        """Cut vectors that are laid out like these into views by the parameters' names."""
        views = {}
        for vector, group in zip(vectors, self._groups, strict=True):
            pieces = vector.split([parameter.numel() for _, parameter in group])
            for (name, parameter), piece in zip(group, pieces, strict=True):
                views[name] = piece.view_as(parameter)
        return views

    def fill(self, vectors: Sequence[Tensor], tensors: Mapping[str, Tensor], prefix: str) -> None:
        """Copy tensors, named like the parameters after a prefix, into vectors that are laid out like these.

        Raises:
            KeyError: If one is missing.
            RuntimeError: If one has another shape.
        """
        for name, view in self.by_name(vectors).items():
            view.copy_(tensors[prefix + name])


def _lay_out(parameters: list[nn.Parameter]) -> nn.Parameter:
    if not parameters:
        return nn.Parameter(torch.zeros(0))
    vector = nn.Parameter(parameters_to_vector(parameters).detach())
    vector_to_parameters(vector, parameters)
    return vector
