"""The scalar recursion that descent is on aligned networks whose frames stand still (R20): see
`theory.modes`."""

from __future__ import annotations

import torch
from torch import Tensor

from dlnlib._checks import need_positive
from dlnlib.dynamics.recording import record_steps

__all__ = ["descend_modes"]


def descend_modes(
    sigma: Tensor, s: Tensor, lam: Tensor, gamma, steps: int, records: int = 20
) -> tuple[Tensor, Tensor]:
    """The recursion from sigma (*runs, L, m) with step gamma (number, or (*runs, 1)): steps (T,),
    (T, *runs, L, m).

    Layers that start equal stay equal to the last bit. Records log-spaced steps; values may
    overflow to infinity or NaN where the step is too large. Cost: 3 L small operations a step.
    """
    need_positive(steps=steps, records=records)
    layers, path, due = list(sigma.unbind(-2)), [sigma], set(record_steps(steps, records))
    same = all(torch.equal(layers[0], layer) for layer in layers)
    depth, layers = len(layers), layers[:1] if same else layers
    for t in range(1, steps + 1):
        if same:
            power = layers[0] ** (depth - 1)
            layers = [layers[0] + gamma * power * (s - lam * power * layers[0])]
        else:
            others = _others(layers)
            step = gamma * (s - lam * others[0] * layers[0])
            layers = [a + step * rest for a, rest in zip(layers, others, strict=True)]
        if t in due:
            path.append(torch.stack(layers * depth if same else layers, -2))
    return torch.tensor(sorted(due), dtype=torch.float64), torch.stack(path)


def _others(layers: list[Tensor]) -> list[Tensor]:
    """Products of all layers but one."""
    below, above = [torch.ones_like(layers[0])], [torch.ones_like(layers[0])]
    for a, b in zip(layers[:-1], reversed(layers[1:]), strict=True):
        below.append(below[-1] * a)
        above.append(above[-1] * b)
    return [a * b for a, b in zip(below, reversed(above), strict=True)]
