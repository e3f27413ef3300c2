"""One step of the compressed network against one of the full network that it reproduces: Y23,
orthogonal start."""

from __future__ import annotations

from dataclasses import dataclass

import torch

import dlnlib as dl
from benchmarks.measure import clock, compare, product_seconds, versus
from dlnlib import theory
from dlnlib.dynamics.fused_descent import advance

__all__ = ["CompressionCase", "CASES", "TINY_CASES", "against_full"]

AGREEMENT = 1e-12
STEPS = 2000  # of the compressed network in one timing; about 0.1 s


@dataclass(frozen=True)
class CompressionCase:
    """L layers of one width, a target of some rank; as many outputs as inputs (case (a)) or as the
    rank (case (b))."""

    width: int
    rank: int
    depth: int
    outputs: int
    scale: float = 0.5
    eta: float = 0.05
    decay: float = 0.01

    @property
    def name(self):
        return (
            f"compressed step, d={self.width} r={self.rank} L={self.depth}, {self.outputs} outputs"
        )

    def problem(self):
        """Orthogonal weights, and a target with singular values r, ..., 1."""
        target = dl.orthogonal([self.width, self.rank], 1)[0]
        target = torch.arange(self.rank, 0, -1)[:, None] * target
        target = dl.orthogonal([self.rank, self.outputs], 2)[0] @ target
        return dl.orthogonal([self.width] * self.depth + [self.outputs], 0, self.scale), target

    def operations(self):
        """Of one full step: 3 L - 3 products, all but L - 1 of them with `outputs` rows."""
        return 2 * (3 * self.depth - 3) * self.outputs * self.width**2


CASES = (CompressionCase(1000, 10, 3, 1000), CompressionCase(1000, 10, 3, 10))
TINY_CASES = (CompressionCase(9, 2, 3, 9), CompressionCase(9, 2, 3, 2))


def against_full(case, repeats):
    """Seconds a step, compressed against full, by the same code; stops with an error where their
    layers differ."""
    weights, target = case.problem()
    net = theory.compress(weights, target)
    _must_agree(case, net, weights, target)
    small, full = ([W[None].clone() for W in layers] for layers in (net.weights, weights))

    def seconds(layers, aim, steps):
        objective, etas = dl.Factorisation(aim[None]), [case.eta] * case.depth
        return clock(lambda: advance(layers, objective, etas, steps, case.decay)) / steps

    def ours():
        return seconds(small, net.target, STEPS)

    def peer():
        return seconds(full, target, several)

    several = max(1, case.width // case.outputs // 10)  # full steps are short in case (b)
    ours(), peer()
    rows = compare(case.name, vars(case), ours, {"full step": peer}, repeats)
    times, ideal = [ours() for _ in range(repeats)], product_seconds(case.operations())
    return rows + [versus(case.name, vars(case), times, "full step at the product rate", ideal)]


def _must_agree(case, net, weights, target, steps=2):
    """Two steps of each (the remaining singular value too): the full layers must be the restored
    ones."""

    def final(layers, aim):
        return dl.descend(
            layers,
            dl.Factorisation(aim),
            dl.Constant(case.eta),
            steps,
            records=1,
            weight_decay=case.decay,
        ).final

    restored = net.restore(final(net.weights, net.target), final(net.rest, net.rest_target))
    gap = max(
        (a - b).abs().max().item() for a, b in zip(final(weights, target), restored, strict=True)
    )
    if not gap <= AGREEMENT:
        raise SystemExit(
            f"{case.name}: compressed and full layers differ by {gap:.1e}, needed at most "
            f"{AGREEMENT:.0e}"
        )
