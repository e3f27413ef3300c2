"""The offset p of a run beside its prediction, and how far the two may lie apart for reasons that
are computed."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from dlnlib.errors import BadParameter, NotCertified
from dlnlib.theory.finite_risk import Horizon, at_horizon
from dlnlib.theory.margin import MaxMargin

if TYPE_CHECKING:
    from dlnlib.dynamics.trajectory import Trajectory

__all__ = ["Forecast", "forecast"]

_UPDATES = 6  # roundings of the weights in one implicit step: its five stages and its end


@dataclass(frozen=True, eq=False)
class Forecast:
    """Records from `first` on, at which every support vector has its dual weight up to a factor of
    two: T of them.

    psi (T,); measured, predicted (T, d): p, and what `theory.at_horizon` makes of the data and the
    layers; even (T, d): the prediction from the data alone, for a balanced start; horizons: the T
    predictions; length: a change of p by this much can change softmax weights by a factor of e.
    Allowances (T,): `rounding` of margins, `integration` (the same run at a coarser accuracy),
    `next_order` of the prediction, `transient` from record `first` on; `room` is their sum.
    """

    first: int
    psi: torch.Tensor
    measured: torch.Tensor
    predicted: torch.Tensor
    even: torch.Tensor
    horizons: list[Horizon]
    length: float
    rounding: torch.Tensor
    integration: torch.Tensor
    next_order: torch.Tensor
    transient: torch.Tensor

    @property
    def room(self) -> torch.Tensor:
        """How far p may be from its prediction, (T,)."""
        return self.rounding + self.integration + self.next_order + self.transient

    @property
    def miss(self) -> torch.Tensor:
        """How far p is from its prediction, (T,)."""
        return (self.measured - self.predicted).norm(dim=1)

    @property
    def best(self) -> int:
        """The record at which p can be known best."""
        return int(self.room.argmin())


def forecast(run: Trajectory, coarse: Trajectory, z: torch.Tensor, solution: MaxMargin) -> Forecast:
    """p of a run (exponential or logistic loss) and its prediction; `coarse`: the same run with a
    larger `accuracy`.

    rounding: margins are known to 2^-53 (L + sum_k d_k + d + 6) ||w||, the roundings of the
    products, of the sums over features and of the five stages and the end of the step that made the
    record, which the softmax turns into sqrt|S| ||H^-1 A^T diag(a)|| times as much: A the support
    vectors across u, a their weights, H their covariance. integration: largest change of the miss
    between the two runs from two decades of psi before (where it falls as psi^-min(1, 3/L), like p
    - p*) to one after; with accuracies a hundred times apart the errors differ about tenfold, so
    that it covers the finer run's. next_order: L gamma ||p - p*||/(lambda c), lambda the least
    eigenvalue of H, and the weight of the points off the margin over lambda. transient: p relaxes
    as e^(-lambda c/(L gamma)). Derived here. Raises HypothesisNotMet without p*, NotCertified when
    no record is late enough.
    """
    first = _settled(run, z, solution)
    fine, other = _Reading(run, first, z, solution), _Reading(coarse, first, z, solution)
    S, u = z[solution.support], solution.direction
    across = S - (S @ u)[:, None] * u
    a = solution.dual[solution.support]
    root = torch.linalg.svdvals(a.sqrt()[:, None] * across)
    least = root[root > 1e-9 * root[0]][-1].item() ** 2 if root[0] > 0 else math.inf
    pull = torch.linalg.matrix_norm(
        torch.linalg.pinv(a.sqrt()[:, None] * across, rtol=1e-9) * a.sqrt(), 2
    ).item()
    count, depth, gamma = len(S), run.depth, solution.margin
    sums = sum(W.shape[-1] for W in run.weights) + depth + z.shape[1] + _UPDATES
    along = torch.tensor([h.along for h in fine.horizons], dtype=z.dtype)
    others = torch.tensor([h.neglected for h in fine.horizons], dtype=z.dtype)
    away = (fine.predicted - solution.offset).norm(dim=1)
    between = (fine.measured - fine.predicted - other.measured + other.predicted).norm(dim=1)
    psi = run.clocks["log_inverse_risk"][first:]
    back = (psi / psi[:, None]).log()  # [j, k]: from record j to k
    fall = (min(1, 3 / depth) * back).exp().clamp(max=1) * (
        (back >= -math.log(105)) & (back <= math.log(10.5))
    )
    return Forecast(
        first=first,
        psi=psi,
        measured=fine.measured,
        predicted=fine.predicted,
        even=fine.even,
        horizons=fine.horizons,
        length=1 / torch.linalg.matrix_norm(across, 2).item() if count > 1 else math.inf,
        rounding=2.0**-53 * sums * run.predictor[first:].norm(dim=1) * math.sqrt(count) * pull,
        integration=(between * fall).amax(1),
        next_order=depth * gamma * away / (least * along) + others * S.norm(dim=1).amax() / least,
        transient=math.log(2)
        * math.sqrt(count)
        * pull
        * torch.exp(-least * (along - along[0]) / (depth * gamma)),
    )


class _Reading:
    """p and its predictions at the records from `first` on."""

    def __init__(self, run, first, z, solution):
        S, u = z[solution.support], solution.direction
        across = S - (S @ u)[:, None] * u
        seen = torch.linalg.pinv(across, rtol=1e-9) @ across
        self.measured = run.predictor[first:] @ seen
        psi = run.clocks["log_inverse_risk"]
        self.horizons, even = [], []
        for i in range(first, len(run)):
            even.append(at_horizon(z, solution, psi[i].item(), run.depth).offset)
            self.horizons.append(at_horizon(z, solution, psi[i].item(), run.depth, run.at(i)))
        self.even, self.predicted = (
            torch.stack(even),
            torch.stack([h.offset for h in self.horizons]),
        )


def _settled(run, z, solution) -> int:
    """First record from which on the softmax weights of the support vectors are the dual's, up to a
    factor of two."""
    share = torch.softmax(-run.margins(z), 1)[:, solution.support] / solution.dual[solution.support]
    late = ((share < 0.5) | (share > 2)).any(1).nonzero()
    first, psi = int(late[-1, 0]) + 1 if len(late) else 1, run.clocks["log_inverse_risk"]
    while first < len(run):
        try:
            at_horizon(z, solution, psi[first].item(), run.depth, run.at(first))
            return first
        except BadParameter:
            first += 1
    raise NotCertified(
        f"at log(1/risk) = {psi[-1]:.3g} the support vectors have not yet their final weights, "
        "needed "
        "up to a factor of two: ask for a larger until, or standardise the features"
    )
