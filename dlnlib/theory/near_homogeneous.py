r"""Networks that are homogeneous up to lower orders: the polynomial p_a, the modified margin and
why it grows (C25).

f is near-M-homogeneous if |<h, theta> - M f(theta; x_i)| <= p'(||theta||) for every h in the Clarke
subdifferential, p a polynomial of degree M at most with coefficients >= 0. p_a is the polynomial of
degree < M with M p_a(r) - r p_a'(r) = p'(r), and the modified margin is (psi - p_a(rho))/rho^M,
with psi = log(1/sum e^{-q_i}). Polynomials are tensors of coefficients, that of r^i at place i.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dlnlib.errors import BadParameter
from dlnlib.measure.stationarity import kkt
from dlnlib.networks.feed_forward import FeedForward, feedforward
from dlnlib.networks.model import Model

__all__ = [
    "ModifiedMargin",
    "companion_polynomial",
    "polynomial_derivative",
    "polynomial_value",
    "homogeneity_bound",
    "homogeneity_deviation",
    "homogenisation",
    "modified_margin",
]


def polynomial_derivative(p: Tensor) -> Tensor:
    """p', one coefficient fewer (but at least one)."""
    return p[1:] * torch.arange(1, len(p), dtype=p.dtype) if len(p) > 1 else torch.zeros_like(p)


def polynomial_value(p: Tensor, r: Tensor) -> Tensor:
    """p(r), elementwise, by Horner's rule."""
    total = torch.zeros_like(r)
    for c in reversed(p.tolist()):
        total = total * r + c
    return total


def companion_polynomial(p: Tensor, order: int) -> Tensor:
    """p_a: coefficient (i+1) p_{i+1}/(order - i) of r^i, i < order; p has degree <= order.

    M p_a - r p_a' = p' has this one solution of degree below M, and with it all p_a + c r^M, which
    move the modified margin by the constant c. Raises BadParameter for a p of higher degree, for
    which there is no polynomial.
    """
    slope = polynomial_derivative(torch.as_tensor(p, dtype=torch.float64))
    high = torch.nonzero(slope[order:])
    if order < 1 or len(high):
        raise BadParameter(
            f"p has degree {len(slope)}, the order is {order}; needed an order >= max(degree, 1)"
        )
    return slope[:order] / (order - torch.arange(min(order, len(slope)), dtype=slope.dtype))


def homogeneity_bound(model: FeedForward) -> Tensor:
    r"""p with p'(r) = K r, K = max_i ||grad q_i(0)||, for one hidden layer and order 2.

    A linear layer with a skip, residual or output bias has f = (quadratic) + <grad f(0), theta>,
    hence <grad f, theta> - 2 f = -<grad f(0), theta>. For softplus, with output bias or not, <grad
    f, theta> - 2 f = -sum_j a_j h_j - c, h_j the binary entropy of the j-th sigmoid, at most log 2
    = s(0). In both cases K is attained, at theta = grad q_i(0). Raises BadParameter for other
    networks.
    """
    kinds = set(model.activations)
    simple = len(model.activations) == 1 and kinds <= {"linear", "relu", "softplus"}
    if not simple or (model.residual and kinds != {"linear"}):
        raise BadParameter(
            f"{model.name}: no bound known; needed one hidden layer, linear, relu or softplus, "
            "residual only if linear"
        )
    at_zero = model.jacobian(model.forward(np.zeros(model.size)))
    return torch.tensor([0.0, 0.0, np.linalg.norm(at_zero, axis=1).max() / 2], dtype=torch.float64)


def homogenisation(model: FeedForward) -> tuple[FeedForward, list[int]]:
    """f_H(theta) = lim f(r theta)/r^2 of one hidden layer, and which parameters of `model` it has,
    in order."""
    if len(model.activations) != 1:
        raise BadParameter(f"{model.name} has {len(model.activations)} hidden layers, needed 1")
    kind = "relu" if model.activations == ("softplus",) else model.activations[0]
    x, y, width = torch.from_numpy(model.x), torch.from_numpy(model.y), model.shapes[0][0]
    limit = feedforward(x, y, [width], kind, bias="first" if model.bias[0] else "none")
    return limit, list(range(len(limit.shapes)))


@torch.no_grad()
def homogeneity_deviation(params: Sequence[Tensor], model: Model, order: int) -> Tensor:
    """<grad q_i, theta> - order q_i at T points, (T, n)."""
    rows = []
    for t in range(len(params[0])):
        theta = model.flat([p[t] for p in params])
        at = model.forward(theta)
        rows.append(torch.from_numpy(model.jacobian(at) @ theta - order * at.q))
    return torch.stack(rows)


@dataclass(frozen=True)
class ModifiedMargin:
    r"""Numbers at T points, (T,) each, with M the order and S = <g, theta>, g = sum p_i grad q_i
    the velocity.

    psi; rho; subtracted = p_a(rho); margin = (psi - p_a)/rho^M; plain = psi/rho^M; growing = S.
    excess = dpsi/dlog rho - rho p_a'(rho) - M (psi - p_a), from the velocity; it is the sum of
    three parts, turning = rho^2 ||g_perp||^2/S (of the sign of S), spare = p'(rho) + sum p_i (<grad
    q_i, theta> - M q_i), which is >= 0 if p bounds the deviation, and disorder = M H(p) >= 0. So
    while S > 0 the modified margin does not fall.
    """

    psi: Tensor
    rho: Tensor
    subtracted: Tensor
    margin: Tensor
    plain: Tensor
    growing: Tensor
    excess: Tensor
    turning: Tensor
    spare: Tensor
    disorder: Tensor


def modified_margin(
    params: Sequence[Tensor], model: Model, p: Tensor, order: int = 2
) -> ModifiedMargin:
    """`Modified` along the exponential-loss flow at T points of params (T, *shape). Some ms a
    point."""
    k = kkt(params, model, degree=order)
    p_a = companion_polynomial(p, order)
    sub, steep = (
        polynomial_value(p_a, k.rho),
        k.rho * polynomial_value(polynomial_derivative(p_a), k.rho),
    )
    S = k.beta * k.speed * k.rho
    # sine of the angle whose chord is the residual
    away = k.residual * (1 - k.residual**2 / 4).clamp(min=0).sqrt()
    weighted = (k.log_p.exp() * homogeneity_deviation(params, model, order)).sum(1)
    return ModifiedMargin(
        k.psi,
        k.rho,
        sub,
        (k.psi - sub) / k.rho**order,
        k.psi / k.rho**order,
        S,
        k.rho**2 * k.speed**2 / S - steep - order * (k.psi - sub),
        (k.rho * k.speed * away) ** 2 / S,
        polynomial_value(polynomial_derivative(p), k.rho) + weighted,
        order * k.entropy,
    )
