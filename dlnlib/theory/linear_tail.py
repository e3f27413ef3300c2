"""What the balances of the start say about a linear tail, and about units of a layer that are on at
the same points.

`start` and `weights` are consecutive layers, the last with one output: (d_{k+1}, d_k) and (T,
d_{k+1}, d_k) each. Everything follows from W_k W_k^T = W_{k+1}^T W_{k+1} - G_k with G_k conserved;
what feeds the first of them is free.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from dlnlib.measure.layers import balance, rank_one_gap, top_singular
from dlnlib.theory.balance import gap_bounds, gap_limit

__all__ = ["gap_range", "unit_block", "block_gap", "block_gap_bound"]


def gap_range(start: list[Tensor], weights: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Least and largest ||W_k||_F^2 - ||W_k||_2^2, (T, layers) each, from the balances of the start
    and v_{k+1}(t).

    gap_k = gap_{k+1} + v^T G_k v - tr G_k - r_k with P = I - v v^T and ||P G_k v||^2/||W_k||_2^2 <=
    r_k <= ||P G_k v||^2/(||W_k||_2^2 - ||P W_k||_F^2) (Schur's complement); the least is -inf where
    that denominator is not positive. Derived here, for JT18-Lem2.
    """
    v = [top_singular(W)[2] for W in weights[1:]]
    ceiling = torch.stack(gap_limit(start, v), -1)
    least, most = torch.zeros_like(ceiling), torch.zeros_like(ceiling)  # of sums of r_j over j >= k
    for k in range(len(v) - 1, -1, -1):
        (G,) = balance(start[k : k + 2])
        across = _across(v[k] @ G, v[k])
        top = torch.linalg.matrix_norm(weights[k], 2) ** 2
        PW = weights[k] - v[k][:, :, None] * (v[k][:, None, :] @ weights[k])
        room = top - PW.square().sum((-2, -1))
        least[:, k] = least[:, k + 1] + across / top
        most[:, k] = most[:, k + 1] + torch.where(room > 0, across / room, math.inf)
    return ceiling - most, ceiling - least


def _across(g: Tensor, v: Tensor) -> Tensor:
    """||g - <g, v> v||^2 for unit v, (T, d) each."""
    return (g - (g * v).sum(-1, keepdim=True) * v).square().sum(-1)


def unit_block(weights: list[Tensor], units: Tensor) -> list[Tensor]:
    """[B, C]: rows of the lower and columns of the upper of two layers that belong to these units
    (mask, indices)."""
    below, above = weights
    return [below[..., units, :], above[..., :, units]]


def block_gap(start: list[Tensor], now: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Least and largest ||B||_F^2 - ||B||_2^2, (T,) each: gap(C) + v^T G v - tr G - r, v the first
    right vector of C.

    start: [B, C] of `block`, now the same at T records; G = C^T C - B B^T is conserved because the
    units are on at the same points. ||P G v||^2/||B||_2^2 <= r <= ||P G v||^2/(||B||_2^2 - ||P
    B||_F^2), as in `gap_range`.
    """
    (G,) = balance(start)
    v = top_singular(now[1])[2]
    across = _across(v @ G, v)
    top = torch.linalg.matrix_norm(now[0], 2) ** 2
    PB = now[0] - v[:, :, None] * (v[:, None, :] @ now[0])
    room = top - PB.square().sum((-2, -1))
    ceiling = rank_one_gap(now[1]) + ((v @ G) * v).sum(-1) - G.trace()
    return ceiling - torch.where(room > 0, across / room, math.inf), ceiling - across / top


def block_gap_bound(start: list[Tensor], tail: list[Tensor]) -> Tensor:
    """Bound of ||B||_F^2 - ||B||_2^2 at all times from the start alone; `tail`: the linear layers
    above, at the start.

    gap(C) <= gap of the whole layer that C is cut from (its best rank-one approximation, cut, is
    one of C), which is bounded by the tail; the rest is Weyl's inequality.
    """
    (G,) = balance(start)
    return gap_bounds(tail)[0] + torch.linalg.eigvalsh(G)[-1] - G.trace()
