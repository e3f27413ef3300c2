r"""What the gradient flow of a model conserves, and its drift along a run.

A hidden unit whose activation is homogeneous of degree k: ||incoming||^2 - k ||outgoing||^2, biases
counted as incoming (LJ22 for k = 1); two linear units of a layer: the whole matrix W_{k+1}^T
W_{k+1} - W_k W_k^T (JT18-eq2). Diagonal networks: w_k^2 - w_{k+1}^2 entry by entry; full circular
convolutions: the same of the moduli of the spectra.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from dlnlib.errors import BadParameter
from dlnlib.measure.layers import balance
from dlnlib.networks.feed_forward import POWERS, FeedForward
from dlnlib.networks.model import Circular, Diagonal, Model

__all__ = ["unit_balance", "conserved", "conserved_drift", "relative_speed"]


def unit_balance(model: FeedForward, params: list[Tensor]) -> list[Tensor]:
    """k ||outgoing||^2 - ||incoming||^2 of every unit, (*lead, width) a hidden layer, k = 1 for
    linear units.

    Conserved for linear units and powers of ReLU without residual connections; computed for all, as
    a control.
    """
    layers, _ = model._layers(params)
    found = []
    for kind, (below, bias), (above, _) in zip(model.activations, layers, layers[1:], strict=False):
        incoming = below.square().sum(-1) + (0 if bias is None else bias.square())
        found.append(POWERS.get(kind, 1) * above.square().sum(-2) - incoming)
    return found


def conserved(model: Model, params: list[Tensor]) -> dict[str, Tensor]:
    """By name, everything listed above that the flow of this model conserves, (*lead, ...) each."""
    if isinstance(model, Diagonal):
        return {
            f"{k + 1}": b**2 - a**2
            for k, (a, b) in enumerate(zip(params, params[1:], strict=False))
        }
    if isinstance(model, Circular):
        D = model.z.shape[1]
        if any(shape != (D,) for shape in model.shapes):
            raise BadParameter(
                f"kernels of sizes {[s[0] for s in model.shapes]} found, needed all {D}"
            )
        power = [torch.fft.rfft(w).abs().square() / D for w in params]
        return {f"{k + 1}": b - a for k, (a, b) in enumerate(zip(power, power[1:], strict=False))}
    if not isinstance(model, FeedForward):
        raise BadParameter(
            f"nothing is known to be conserved by {model.name}: measure what you expect yourself"
        )
    matrices, units = model.matrices(params), unit_balance(model, params)
    pairs = balance(matrices)
    found = {}
    for k, (kind, unit, pair) in enumerate(zip(model.activations, units, pairs, strict=True)):
        if model.residual or not (kind == "linear" or kind in POWERS):
            continue
        bias = model._layers(params)[0][k][1]
        if kind == "linear":
            found[f"{k + 1} (pairs)"] = (
                pair if bias is None else pair - bias[..., :, None] * bias[..., None, :]
            )
        else:
            found[f"{k + 1} (units)"] = unit
    return found


def conserved_drift(model: Model, params: list[Tensor]) -> Tensor:
    """max |G - G(0)| / ||theta||^2 over all of `conserved`, (T,), for params (T, *shape) along a
    run."""
    T = len(params[0])
    size = torch.stack([p.reshape(T, -1).square().sum(1) for p in params]).sum(0)
    moved = [(G - G[0]).reshape(T, -1).abs().amax(1) for G in conserved(model, params).values()]
    return torch.stack(moved).amax(0) / size if moved else torch.zeros_like(size)


def relative_speed(
    quantity: Callable[[list[Tensor]], Tensor], model: Model, params: list[Tensor]
) -> Tensor:
    """max |dI/dtau| / (||theta|| ||g||) of I = quantity(params), a scalar, along dtheta/dtau = g =
    grad log(1/R).

    R is the mean exponential loss; one point (*shape), away from kinks. Exact up to rounding: no
    run is needed to say what is conserved.
    """
    leaves = [p.detach().clone().requires_grad_() for p in params]
    log_risk = torch.logsumexp(-model(leaves), dim=-1)
    g = [-slope for slope in torch.autograd.grad(log_risk, leaves)]
    point = [p.detach() for p in params]
    slopes = torch.autograd.functional.jacobian(lambda *p: quantity(list(p)), tuple(point))
    moved = sum(
        (J.flatten(J.ndim - v.ndim) * v.flatten()).sum(-1) for J, v in zip(slopes, g, strict=True)
    )
    size, pace = (torch.stack([p.square().sum() for p in a]).sum().sqrt() for a in (point, g))
    return moved.abs().max() / (size * pace)
