"""R20: rank-one aligned layers W_i = s_i u_i u_{i-1}^T are a network of width one, whatever the
loss and the steps.

With W_1 = u_1 a^T and W_L = b u_{L-1}^T (a and b free; b a number with one output), the gradient of
any function of the product has the same form with the same u_1, ..., u_{L-1}: the narrow network
with layers a^T, s_2, ..., b.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from dlnlib.errors import HypothesisNotMet
from dlnlib.measure.layers import top_singular
from dlnlib.networks.product import check_shapes

__all__ = ["narrow", "widen", "project_narrow", "off_component"]

TOLERANCE = 1e-12  # relative, of a form that holds exactly on paper


def narrow(weights: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    """The network of width one, u_i^T W_i u_{i-1} (*runs, 1, 1) inside, and the unit vectors u_1,
    ..., u_{L-1}.

    Raises HypothesisNotMet unless the layers are of rank one and aligned.
    """
    check_shapes(weights)
    units = [top_singular(W)[0] for W in weights[:-1]]
    worst = torch.stack(off_component(weights, units)).max().item()
    if not worst <= TOLERANCE:
        raise HypothesisNotMet(
            f"the layers are off the rank-one aligned form by {worst:.2g}, needed at most "
            f"{TOLERANCE:.0e}, relative: start from networks.aligned"
        )
    return project_narrow(weights, units), units


def project_narrow(weights: Sequence[Tensor], units: Sequence[Tensor]) -> list[Tensor]:
    """u_i^T W_i u_{i-1} of any layers (..., d_i, d_{i-1}), with nothing to the left of W_L and to
    the right of W_1."""
    layers = []
    for i, W in enumerate(weights):
        A = W if i == len(weights) - 1 else units[i][..., None, :] @ W
        layers.append(A if i == 0 else A @ units[i - 1][..., :, None])
    return layers


def widen(narrow: Sequence[Tensor], units: Sequence[Tensor]) -> list[Tensor]:
    """Layers u_i s_i u_{i-1}^T of the wide network from those of the narrow one."""
    layers = []
    for i, s in enumerate(narrow):
        A = s if i == len(narrow) - 1 else units[i][..., :, None] @ s
        layers.append(A if i == 0 else A @ units[i - 1][..., None, :])
    return layers


def off_component(weights: Sequence[Tensor], units: Sequence[Tensor]) -> list[Tensor]:
    """||W_i - u_i u_i^T W_i u_{i-1} u_{i-1}^T||_F / ||W_i||_F for each layer, (...): 0 in the
    rank-one aligned form."""
    kept = widen(project_narrow(weights, units), units)
    return [
        torch.linalg.matrix_norm(W - A) / torch.linalg.matrix_norm(W)
        for W, A in zip(weights, kept, strict=True)
    ]
