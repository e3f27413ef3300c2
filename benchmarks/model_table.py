"""The flow of models beyond products of matrices: compiled margins against the same method in
NumPy."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch

import dlnlib as dl
from benchmarks.measure import clock, compare
from dlnlib.networks import FeedForward

__all__ = ["ModelCase", "CASES", "TINY_CASES", "against_numpy"]


@dataclass(frozen=True)
class ModelCase:
    """Flow of a two-layer ReLU network on the first n points to log(1/risk) = until, exponential
    loss."""

    spec: str
    n: int
    width: int
    until: float

    @property
    def name(self):
        return f"{self.spec} n={self.n} ReLU width={self.width}"

    def problem(self):
        """The model, and Gaussian parameters."""
        points = dl.load(self.spec)
        x, y = torch.as_tensor(points.x)[: self.n], torch.as_tensor(points.y)[: self.n]
        model = dl.two_layer(x / x.norm(dim=1).max(), y, self.width)
        return model, model.start(0)


CASES = (
    ModelCase("random:n=20,d=5,gap=0.3", 20, 10, 300.0),
    ModelCase("digits:3,8", 100, 10, 300.0),
)
TINY_CASES = (ModelCase("six-points", 6, 6, 10.0),)


class _InNumPy(FeedForward):
    """The same network: kernels go by the exact type."""


def against_numpy(case, repeats):
    """Processor time of whole runs, which must take the same number of steps."""
    model, start = case.problem()
    plain = _InNumPy(**{field.name: getattr(model, field.name) for field in fields(model)})
    steps = set()

    def run(model):
        found = dl.flow(start, model, dl.exponential, until=case.until)
        steps.add(found.settings["steps"])

    run(model)  # compiles
    sizes = {"P": model.size} | vars(case)
    rows = compare(
        case.name,
        sizes,
        lambda: clock(lambda: run(model)),
        {"the same in NumPy": lambda: clock(lambda: run(plain))},
        repeats,
    )
    if len(steps) > 1:
        raise SystemExit(f"{case.name}: the NumPy side takes other steps, {sorted(steps)}")
    return rows
