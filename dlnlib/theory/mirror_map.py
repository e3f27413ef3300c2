r"""The potential that the flow of a diagonal network of two layers descends, and its minimisers.

beta = u^2 - v^2 elementwise, u, v > 0 at the start. Under the flow of any loss of the margins z
beta,
    beta = c sinh(4 z^T lambda + tilt),  c = 2 u(0) v(0),  tilt = log(u(0)/v(0)),
    lambda_i = int -l'(q_i) dt / n >= 0,
so that theta = (asinh(beta/c) - tilt)/4 = grad Q(beta) stays in the cone of the z_i. Derived in the
chapter on quasi-norms. Q is of the order of the 2-norm for |beta| << c and of the 1-norm for |beta|
>> c.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dlnlib.errors import BadParameter, NotCertified
from dlnlib.theory._linalg import nnls

__all__ = ["Potential", "potential_of_start"]


@dataclass(frozen=True, eq=False)
class Potential:
    """Q with gradient theta(beta) = (asinh(beta/c) - tilt)/4; `c` > 0 and `tilt`, (d,) each."""

    c: Tensor
    tilt: Tensor

    def theta(self, beta: Tensor) -> Tensor:
        """grad Q at beta (..., d)."""
        return (torch.asinh(beta / self.c) - self.tilt) / 4

    def beta(self, theta: Tensor) -> Tensor:
        """The inverse of `theta`: c sinh(4 theta + tilt)."""
        return self.c * torch.sinh(4 * theta + self.tilt)

    def value(self, beta: Tensor) -> Tensor:
        """Q(beta) = (1/4) sum_i [beta (asinh(beta/c) - tilt) - sqrt(c^2 + beta^2) + c], (...)."""
        root = torch.hypot(self.c, beta)
        return (beta * (torch.asinh(beta / self.c) - self.tilt) - beta**2 / (root + self.c)).sum(
            -1
        ) / 4

    def divergence(self, a: Tensor, b: Tensor) -> Tensor:
        """<grad Q(a) - grad Q(b), a - b> >= 0, (...): the symmetric Bregman divergence, 0 for a = b
        only."""
        return ((self.theta(a) - self.theta(b)) * (a - b)).sum(-1)

    def multipliers(self, beta: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        """lambda >= 0 (T, n) with z^T lambda nearest to theta(beta), beta (T, d); relative distance
        left (T,)."""
        theta, E = self.theta(beta), z.detach().cpu().numpy().T
        found = z.new_tensor(np.stack([nnls(E, t) for t in theta.detach().cpu().numpy()]))
        return found, (found @ z - theta).norm(dim=1) / theta.norm(dim=1).clamp(min=1e-300)

    def least(
        self, z: Tensor, floor: float, equal: bool = False, steps: int = 500
    ) -> tuple[Tensor, Tensor]:
        """argmin Q(beta) s.t. z beta >= floor (or == floor), and the multipliers (n,).

        Newton's method on the dual, min over lambda (>= 0 unless `equal`) of sum_k (c/4) cosh(4 z^T
        lambda + tilt) - floor sum lambda, with steps that change 4 theta by at most 1. Raises
        NotCertified when margins or slackness are off by more than 1e-9 floor in the end.
        """
        if not floor > 0:
            raise BadParameter(f"floor is {floor}, needed positive: rescale the margins")
        Z, c, tilt = (t.detach().cpu().numpy() for t in (z, self.c, self.tilt))
        weights = np.zeros(len(Z))
        for _ in range(steps):
            angle = 4 * (weights @ Z) + tilt
            beta = c * np.sinh(angle)
            slack = Z @ beta - floor
            unmet = (
                np.abs(slack)
                if equal
                else np.maximum(-slack, np.minimum(np.abs(slack), weights * np.abs(slack)))
            )
            if unmet.max() <= 1e-11 * floor:
                break
            change = _newton(Z * np.sqrt(4 * c * np.cosh(angle)), slack, None if equal else weights)
            weights = weights + change / max(1.0, 4 * np.abs(change @ Z).max())
            weights = weights if equal else np.maximum(weights, 0.0)
        if not unmet.max() <= 1e-9 * floor:
            raise NotCertified(
                f"constraints are off by {unmet.max() / floor:.1e} of their size after {steps} "
                "steps, "
                "needed 1e-9: are the data separable?"
            )
        return z.new_tensor(beta), z.new_tensor(weights)


def _newton(A: np.ndarray, slack: np.ndarray, weights: np.ndarray | None) -> np.ndarray:
    """Newton's step for Hessian A A^T and gradient `slack`; with `weights`, among those that keep
    them >= 0."""
    B = np.vstack([A.T, 1e-7 * np.linalg.norm(A) * np.eye(len(A))])
    Q, R = np.linalg.qr(B)
    free = Q @ np.linalg.solve(R.T, -slack)
    if weights is None:
        return np.linalg.solve(R, Q.T @ free)
    return nnls(B, B @ weights + free) - weights


def potential_of_start(u: Tensor, v: Tensor) -> Potential:
    """The potential of a flow that starts at u, v (d,), all positive."""
    if not (bool((u > 0).all()) and bool((v > 0).all())):
        raise BadParameter(
            f"least entries of u and v are {float(u.min()):.3g} and {float(v.min()):.3g}, needed "
            "> 0"
        )
    return Potential(2 * u * v, torch.log(u / v))
