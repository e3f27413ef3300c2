r"""How fast Adam lowers the risk of one linear layer: its averages remember, and epsilon takes over at small gradients.

Where log(1/R) grows by c a step, gradients shrink by e^{-c}, and Adam's averages are m = B g and sqrt(v) = A |g|, with
B = (1 - beta1)/(1 - beta1 e^c), A^2 = (1 - beta2)/(1 - beta2 e^{2c}). The step is h m/(sqrt(v) + epsilon).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["speed", "takeover"]


def speed(psi: Tensor, zbar: Tensor, h: float, epsilon: float, beta1: float, beta2: float) -> Tensor:
    r"""c at psi = log(1/R) (T,), for a gradient e^{-psi} zbar of the risk, zbar (d,): the root of

        c = h B(c) sum_j zbar_j^2 / (A(c) |zbar_j| + epsilon e^psi),

    below the limit min(-log(beta2)/2, -log beta1) past which the averages would not forget. For epsilon = 0 and small
    h it is h ||zbar||_1, sign descent's. Derived here.
    """
    low, high = torch.zeros_like(psi), torch.full_like(psi, min(-math.log(beta2) / 2, -math.log(beta1)))
    size = zbar.abs()
    for _ in range(120):
        c = (low + high) / 2
        first, second = (1 - beta1) / (1 - beta1 * c.exp()), ((1 - beta2) / (1 - beta2 * (2 * c).exp())).sqrt()
        floor = epsilon * psi.clamp(max=700).exp()  # beyond 700 the gradient is gone
        push = h * first * (size**2 / (second[..., None] * size + floor[..., None])).nansum(-1)
        low, high = torch.where(push > c, c, low), torch.where(push > c, high, c)
    return (low + high) / 2


def takeover(zbar: Tensor, h: float, epsilon: float, beta1: float, beta2: float) -> float:
    """psi at which epsilon > 0 has halved Adam's speed, for a gradient e^{-psi} zbar; infinite for epsilon = 0."""
    if epsilon == 0:
        return math.inf
    low, high = -50.0, 700.0
    goal = speed(zbar.new_tensor([0.0]), zbar, h, 0.0, beta1, beta2).item() / 2
    for _ in range(60):
        psi = (low + high) / 2
        faster = speed(zbar.new_tensor([psi]), zbar, h, epsilon, beta1, beta2).item() > goal
        low, high = (psi, high) if faster else (low, psi)
    return psi
