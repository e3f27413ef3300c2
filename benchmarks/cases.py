"""The runs that are timed: flow cases with their targets, descent batches."""

from __future__ import annotations

from dataclasses import dataclass

import torch

import dlnlib as dl
from dlnlib import measure

__all__ = ["FlowCase", "FLOWS", "TINY_FLOWS", "Batch", "BATCHES", "TINY_BATCHES"]


@dataclass(frozen=True)
class FlowCase:
    """Flow of one network, or of several from different starts, to log(1/risk) = until, logistic
    loss."""

    spec: str
    width: int
    depth: int
    target: float  # seconds
    runs: tuple[int, ...] = ()
    until: float = 1e9

    @property
    def name(self):
        return f"{self.spec} L={self.depth} width={self.width}" + (
            f" x{self.runs[0]}" if self.runs else ""
        )

    def problem(self):
        """z (n, d) and unbalanced Gaussian weights whose risk is at most l(0)."""
        z = dl.load(self.spec).scaled().z
        dims = [z.shape[1]] + [self.width] * (self.depth - 1) + [1]
        return z, measure.meeting_assumption_2(
            lambda s: dl.gaussian(dims, s), z, dl.logistic, runs=self.runs
        )


FLOWS = (
    FlowCase("random:n=20,d=5", 5, 3, 0.3),
    FlowCase("random:n=40,d=10", 10, 4, 0.6),
    FlowCase("random:n=60,d=20", 20, 4, 1.0),
    FlowCase("random:n=60,d=20", 20, 6, 1.5),
    FlowCase("digits:0,1", 64, 3, 8.0),
    FlowCase("digits:3,8", 64, 3, 20.0),
    FlowCase("random:n=20,d=5", 5, 3, 4.0, runs=(64,)),
)
TINY_FLOWS = (FlowCase("six-points", 2, 2, 0.3, until=1e2),)


@dataclass(frozen=True)
class Batch:
    """S runs of L layers of one width = d, n random separable points, steps of constant size."""

    runs: int
    depth: int
    width: int
    n: int
    eta: float = 0.05

    @property
    def name(self):
        return f"S={self.runs} L={self.depth} width={self.width} n={self.n}"

    @property
    def dims(self):
        return [self.width] * self.depth + [1]

    def problem(self):
        """z (n, d) in the unit ball and Gaussian weights, (S, d_{k+1}, d_k) each."""
        z = dl.random_separable(n=self.n, d=self.width).scaled().z
        return z, dl.gaussian(self.dims, 0, runs=(self.runs,))

    def traffic(self):
        """Bytes of all weights, and operations of one step: two sweeps and an update, margins and
        their transpose."""
        parameters = sum(a * b for a, b in zip(self.dims, self.dims[1:], strict=False))
        item = torch.finfo(torch.float64).bits // 8
        return self.runs * parameters * item, self.runs * (6 * parameters + 4 * self.n * self.width)


BATCHES = (Batch(1, 4, 10, 40), Batch(64, 4, 10, 40), Batch(64, 4, 32, 128), Batch(16, 4, 128, 256))
TINY_BATCHES = (Batch(3, 2, 3, 5),)
