"""What an algorithm's own memory and noise add to the limit: the pace of Adam, the fluctuations of
stochastic descent.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dlnlib.errors import HypothesisNotMet
from dlnlib.theory.margin import MaxMargin

__all__ = ["adam_speed", "adam_takeover", "Fluctuation", "fluctuation", "linear_noise"]


def adam_speed(
    psi: Tensor, zbar: Tensor, h: float, epsilon: float, beta1: float, beta2: float
) -> Tensor:
    r"""c at psi = log(1/R) (T,), for a gradient e^{-psi} zbar of the risk, zbar (d,): the root of

        c = h B(c) sum_j zbar_j^2 / (A(c) |zbar_j| + epsilon e^psi),

    below the limit min(-log(beta2)/2, -log beta1) past which the averages would not forget. For
    epsilon = 0 and small h it is h ||zbar||_1, sign descent's. Derived here.
    """
    low, high = (
        torch.zeros_like(psi),
        torch.full_like(psi, min(-math.log(beta2) / 2, -math.log(beta1))),
    )
    size = zbar.abs()
    for _ in range(120):
        c = (low + high) / 2
        first, second = (
            (1 - beta1) / (1 - beta1 * c.exp()),
            ((1 - beta2) / (1 - beta2 * (2 * c).exp())).sqrt(),
        )
        floor = epsilon * psi.clamp(max=700).exp()  # beyond 700 the gradient is gone
        push = h * first * (size**2 / (second[..., None] * size + floor[..., None])).nansum(-1)
        low, high = torch.where(push > c, c, low), torch.where(push > c, high, c)
    return (low + high) / 2


def adam_takeover(zbar: Tensor, h: float, epsilon: float, beta1: float, beta2: float) -> float:
    """psi at which epsilon > 0 has halved Adam's speed, for a gradient e^{-psi} zbar; infinite for
    epsilon = 0."""
    if epsilon == 0:
        return math.inf
    low, high = -50.0, 700.0
    goal = adam_speed(zbar.new_tensor([0.0]), zbar, h, 0.0, beta1, beta2).item() / 2
    for _ in range(60):
        psi = (low + high) / 2
        faster = adam_speed(zbar.new_tensor([psi]), zbar, h, epsilon, beta1, beta2).item() > goal
        low, high = (psi, high) if faster else (low, psi)
    return psi


# --- the noise of one layer -----------------------------------------------------------------------


@dataclass(frozen=True)
class Fluctuation:
    """After k steps: Cov(w - w^ log k) -> covariance / k in the span of the support vectors, (d,
    d).

    spread: k Var(R eta k gamma^2) -> spread = n sum a_i^2 - 1. rate: least eigenvalue of M; the law
    needs it above 1/2.
    """

    covariance: Tensor
    spread: float
    rate: float


def fluctuation(z: Tensor, solution: MaxMargin) -> Fluctuation:
    r"""Law of the noise of single-sample descent with constant step on <w, z_i>, exponential or
    logistic loss.

    With alpha = a/gamma^2, w^ = u/gamma, M = sum alpha_i z_i z_i^T and D = n sum alpha_i^2 z_i
    z_i^T - w^ w^^T, the remainder delta = w - w^ log(eta k) - w~ obeys d delta = -M delta dk/k +
    noise of covariance D dk/k^2, so that Cov(delta) = S/k with (M - 1/2) S + S (M - 1/2) = D.
    Raises HypothesisNotMet where M has an eigenvalue of 1/2 or less on the span of the support
    vectors (the noise then dies more slowly, like k^-2 lambda). Derived here.
    """
    S, a, gamma = z[solution.support], solution.dual[solution.support], solution.margin
    alpha = a / gamma**2
    basis = torch.linalg.svd(S, full_matrices=False)[2][: int(torch.linalg.matrix_rank(S))].T
    T, w = S @ basis, basis.T @ solution.direction / gamma
    rates, axes = torch.linalg.eigh((T.T * alpha) @ T)
    if rates[0] <= 0.5:
        raise HypothesisNotMet(
            f"least eigenvalue of M is {rates[0].item():.3g}, needed above 1/2: no 1/k law"
        )
    D = axes.T @ (len(z) * (T.T * alpha**2) @ T - torch.outer(w, w)) @ axes
    covariance = basis @ axes @ (D / (rates[:, None] + rates - 1)) @ axes.T @ basis.T
    return Fluctuation(covariance, len(z) * a.square().sum().item() - 1, rates[0].item())


def linear_noise(z: Tensor, start: Tensor, eta: float, steps: Tensor) -> tuple[Tensor, Tensor]:
    r"""Mean and covariance of w after these steps (T,), to first order in the noise: (T, d) and (T,
    d, d).

    Exponential loss, one layer, single samples: with R the mean risk, dw/dk = -eta grad R(w), and
    dC/dk = -eta (H C + C H) + eta^2 (mean_j e^(-2 q_j) z_j z_j^T - grad R grad R^T), H the Hessian
    of R. What is neglected is of relative order eta at the start and R later. Source: van Kampen's
    expansion; derived here.
    """
    from scipy.integrate import solve_ivp

    Z, d = z.numpy(), z.shape[1]

    def slope(s, state):
        w, C = state[:d], state[d:].reshape(d, d)
        e = np.exp(-Z @ w)
        H, grad = (Z.T * e) @ Z / len(Z), -(Z.T @ e) / len(Z)
        dC = -eta * (H @ C + C @ H) + eta**2 * ((Z.T * e**2) @ Z / len(Z) - np.outer(grad, grad))
        return math.exp(s) * np.concatenate([-eta * grad, dC.ravel()])  # s = log(1 + k)

    at = np.log1p(steps.numpy())
    found = solve_ivp(
        slope,
        (0.0, at[-1]),
        np.concatenate([start.numpy(), np.zeros(d * d)]),
        "LSODA",
        at,
        rtol=1e-8,
        atol=1e-12,
    ).y.T
    return z.new_tensor(found[:, :d]), z.new_tensor(found[:, d:]).reshape(-1, d, d)
