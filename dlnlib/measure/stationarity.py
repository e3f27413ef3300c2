r"""How far a point is from a KKT point of min ||theta||^2 / 2 s.t. q_i(theta) >= 1, for any model,
at any loss.

All from margins and their Jacobian; p_i are the normalised slopes of the loss, kept as logarithms,
so that nothing underflows. Here the loss is a *sum* over points, as in LL20 and JT20: psi =
log(1/sum_i l(q_i)), which is the clock `log_inverse_risk` of a trajectory (a mean) minus log n.
Where units are at a kink, g is the element of least norm of the Clarke subdifferential, which is
the velocity of the flow.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dlnlib.losses.margin import Loss, exponential

__all__ = ["KKTMeasures", "kkt", "ascent_direction", "subgradients", "log_slopes"]

AT_KINK = 1e-11  # of the largest pre-activation


@dataclass(frozen=True)
class KKTMeasures:
    r"""Numbers at T points, (T,) each unless said otherwise; with L the model's degree (or the one
    given).

    psi = log(1/sum l(q_i)); rho = ||theta||; q_min; log_p (T, n); entropy H(p) = -sum p log p;
    smoothed = l^{-1}(sum l(q_i))/rho^L (psi/rho^L for the exponential loss); margin = q_min/rho^L;
    residual = || theta/rho - g/||g|| || = sqrt(2 (1 - beta)), by differences; beta = <g,
    theta>/(||g|| rho); slackness = sum p_i (q_i - q_min)/q_min; speed = ||g||, g = sum p_i grad
    q_i. On dtheta/dtau = g (exponential loss): growth = L ||dtheta_hat/dtau||^2 / (dlog rho/dtau),
    and rise = dlog(psi/rho^L)/dtau; LL20, Lemma 5.1 says rise >= growth, and rise - growth =
    `identity` = ||g||^2 (1/psi - 1/sum p_i q_i).
    """

    psi: Tensor
    rho: Tensor
    q_min: Tensor
    log_p: Tensor
    entropy: Tensor
    smoothed: Tensor
    margin: Tensor
    residual: Tensor
    beta: Tensor
    slackness: Tensor
    speed: Tensor
    rise: Tensor
    growth: Tensor
    identity: Tensor


@torch.no_grad()
def kkt(
    params, model, loss: Loss = exponential, degree: int | None = None, near: float = AT_KINK
) -> KKTMeasures:
    """All `Measures` at the T points of params, (T, *shape) each (one point without the first
    dimension: T = 1).

    `near`: pre-activations of at most this share of the largest count as at their kink. Steps of
    descent straddle kinks that the flow slides on; with `near` of the size of a step, g is of least
    norm in a hull of gradients nearby.

    `degree` where the model has none (for its homogenisation) or a wrong one is to be tried. Some
    ms a point.
    """
    params = [p if p.ndim > len(s) else p[None] for p, s in zip(params, model.shapes, strict=True)]
    L = model.degree if degree is None else degree
    rows = [_at([p[t] for p in params], model, loss, L, near) for t in range(len(params[0]))]
    return KKTMeasures(*(torch.stack(column) for column in zip(*rows, strict=True)))


def ascent_direction(params, model, loss: Loss = exponential) -> list[Tensor]:
    """g = sum p_i grad q_i at one point, shaped like the parameters: -grad log R up to a positive
    factor.

    For the exponential loss -grad log R = g. Source of the element at a kink: least norm over
    slopes in [0, 1].
    """
    theta = model.flat(params)
    p = log_slopes(model(params), loss).exp().numpy()
    return model.parts(params[0].new_tensor(_least(model, theta, p)))


def subgradients(params, model, loss: Loss = exponential) -> Tensor:
    """J (n, P), rows h_i in the Clarke subdifferential of q_i at one point, with sum p_i h_i =
    `ascent`.

    Where units are at a kink these are the slopes that the flow holds them with; the tangent
    features of LL20-C4.5.
    """
    theta = model.flat(params)
    p = log_slopes(model(params), loss).exp().numpy()
    return params[0].new_tensor(model.jacobian(model.forward(theta, _slopes(model, theta, p))))


def log_slopes(q: Tensor, loss: Loss = exponential) -> Tensor:
    """log p, p_i = |l'(q_i)| / sum_j |l'(q_j)|; (..., n)."""
    return torch.log_softmax(loss.log_slopes(q), dim=-1)


def _at(params, model, loss, L, near):
    theta = model.flat(params)
    q = torch.from_numpy(model.forward(theta).q)
    log_p = log_slopes(q, loss)
    p, least = log_p.exp(), q.min()
    log_sum = torch.logsumexp(loss.log_loss(q), dim=-1)
    psi, rho = -log_sum, torch.tensor(float(np.linalg.norm(theta)), dtype=torch.float64)
    g, at = torch.from_numpy(_least(model, theta, p.numpy(), near)), torch.from_numpy(theta)
    speed, inner = g.norm(), g @ at
    away = (g - inner / rho**2 * at).norm()
    residual = (at / rho - g / speed).norm()
    power = math.nan if L is None else rho**L
    order = math.nan if L is None else float(L)
    growth, rise = order * away**2 / inner, speed**2 / psi - order * inner / rho**2
    return (
        psi,
        rho,
        least,
        log_p,
        -(p * log_p.clamp(min=-700)).sum(),
        loss.inverse(log_sum) / power,
        least / power,
        residual,
        1 - residual**2 / 2,
        (p @ (q - least)) / least,
        speed,
        rise,
        growth,
        speed**2 * (1 / psi - 1 / (p @ q)),
    )


def _least(model, theta, p, near=AT_KINK):
    """sum p_i grad q_i, at kinks with the slopes in [0, 1] that make it shortest."""
    return p @ model.jacobian(model.forward(theta, _slopes(model, theta, p, near)))


def _slopes(model, theta, p, near=AT_KINK):
    """Slopes (m,) of all units with a kink: 0 or 1, and in between at a kink; None where there is
    nothing to choose."""
    at = model.forward(theta)
    kinks = np.flatnonzero(np.abs(at.pre) <= near * np.abs(at.pre).max(initial=0.0))
    if not len(kinks):
        return None
    from scipy.optimize import lsq_linear

    on = (at.pre > 0).astype(float)
    on[kinks] = 0.0
    off = model.forward(theta, on)
    raw = p @ model.jacobian(off)
    A, points, forces = model.switches(off, kinks)
    layers = model.units(kinks)[0]
    # a force passes through kinks above it, whose slopes come first
    for _ in range(len(set(layers.tolist()))):
        sizes, slopes = p[points] * forces, np.zeros(len(kinks))
        felt = np.abs(sizes) > 1e-200
        if felt.any():
            rows = A[felt] * (sizes[felt] / np.abs(sizes[felt]))[:, None]
            most = np.abs(sizes[felt])
            slopes[felt] = lsq_linear(rows.T, -raw, (0, most), method="bvls", tol=1e-14).x / most
        on[kinks] = slopes
        if len(set(layers.tolist())) > 1:
            forces = model.switches(model.forward(theta, on), kinks)[2]
    return on
