"""Activation patterns of a network with kinks along a run: which units are on, which agree, which
can no longer change.

A pattern is the sign of a pre-activation, 0 where a unit is held at its kink (a sliding pair).
Shapes: T recorded points, n data points, m units of a layer.
"""

from __future__ import annotations

import torch
from torch import Tensor

from dlnlib.measure.layers import path_length
from dlnlib.measure.stationarity import AT_KINK
from dlnlib.networks.feed_forward import FeedForward

__all__ = ["activation_signs", "on_together", "distinct_patterns", "settled_signs"]


def activation_signs(model: FeedForward, params: list[Tensor], layer: int = 0) -> Tensor:
    """Signs (T, n, m) of the pre-activations of hidden layer `layer` (from 0) on the model's
    points, 0 at a kink."""
    pre = model.hidden(params, torch.as_tensor(model.x))[layer]
    near = pre.abs() <= AT_KINK * pre.abs().amax((-2, -1), keepdim=True)
    return pre.sign().masked_fill(near, 0.0)


def on_together(seen: Tensor) -> Tensor:
    """Pairs of units that have been on at the same points at every record so far, (T, m, m), from
    signs (T, n, m).

    A unit at a kink agrees with nobody but itself: its slope there is its own.
    """
    on, kink = seen > 0, (seen == 0).any(1)
    same = (on[..., :, None] == on[..., None, :]).all(1) & ~kink[:, :, None] & ~kink[:, None, :]
    return (same | torch.eye(seen.shape[-1], dtype=torch.bool, device=seen.device)).cummin(0).values


def distinct_patterns(seen: Tensor) -> int:
    """Number of different patterns among units that are on somewhere, from signs (n, m); each unit
    at a kink counts."""
    kink, alive = (seen == 0).any(0), (seen > 0).any(0)
    plain = (seen[:, alive & ~kink] > 0).T
    return int(kink.sum()) + (len(torch.unique(plain, dim=0)) if len(plain) else 0)


def settled_signs(model: FeedForward, params: list[Tensor]) -> Tensor:
    """Pairs (T, n, m) of the first layer whose sign cannot change any more before the last record.

    With r_j = <w_j, x_i>/||theta||, |r_j(t) - r_j(s)| <= ||x_i|| times the path length of
    theta/||theta|| between t and s: where |r_j(t)| exceeds what is left of it, the sign stays. No
    biases.
    """
    flat = [p.flatten(1) for p in params]
    theta = torch.cat(flat, 1)
    x = torch.as_tensor(model.x)
    r = x @ params[0].mT / theta.norm(dim=1)[:, None, None]
    length = path_length([theta[:, None, :]])
    left = length[-1] - length
    # kinks are told to 1e-11
    return r.abs() > (left[:, None, None] + 1e-9) * x.norm(dim=1)[:, None]
