"""Constants of the risk on balls of weights: smoothness, and floors of product and gradient
(JT18)."""

from __future__ import annotations

import math

import torch

__all__ = ["ball_smoothness", "product_floor", "gradient_floor"]


# --- balls of radius R ----------------------------------------------------------------------------


def ball_smoothness(depth: int, radius, beta: float, G: float):
    """beta(R) = 2 L^2 R^{2L-2} (beta + G), on max_k ||W_k||_F <= R with R >= 1 and ||x_i|| <= 1
    (JT18-Lem5)."""
    return 2 * depth**2 * radius ** (2 * depth - 2) * (beta + G)


def product_floor(log_risk: torch.Tensor, radius, loss) -> torch.Tensor:
    """||W_L ... W_2|| >= r/R, where l(r) is a risk not exceeded later, ||W_1||_F <= R, ||x_i|| <= 1
    (JT18-Lem1)."""
    return loss.inverse(torch.as_tensor(log_risk, dtype=torch.float64)) / radius


def gradient_floor(margin: float, depth: int, radius, loss) -> torch.Tensor:
    """log of gamma |l'(R^L)|, below log ||grad R(w)|| in the ball, if |l'| is falling and ||x_i||
    <= 1 (JT18-Lem1).

    ||dR/dW_1||_F = ||W_L ... W_2|| ||grad R(w)|| is then at least `product_floor` times its
    exponential.
    """
    return math.log(margin) + loss.log_slopes(torch.as_tensor(radius, dtype=torch.float64) ** depth)
