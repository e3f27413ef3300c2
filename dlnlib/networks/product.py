"""What a network W_L ... W_1 computes: its product, its predictor and margins, and all its weights
as one row.

`weights` is a list, weights[k] of shape (*runs, d_{k+1}, d_k) for `dims` = [d_0, ..., d_L], k from
0, float64.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from dlnlib.errors import NonFinite, ShapeMismatch

__all__ = [
    "end_to_end",
    "predictor",
    "margins",
    "check_shapes",
    "checked_target",
    "products_above",
    "flatten",
    "unflatten",
]


def end_to_end(weights: Sequence[Tensor]) -> Tensor:
    """The product W_L ... W_1, (*runs, d_L, d_0)."""
    return products_above(weights)[0]


def predictor(weights: Sequence[Tensor]) -> Tensor:
    """The end-to-end vector w = (W_L ... W_1)^T of a network with one output, (*runs, d)."""
    if weights[-1].shape[-2] != 1:
        raise ShapeMismatch(
            f"network has {weights[-1].shape[-2]} outputs, needed 1: use end_to_end for several"
        )
    return end_to_end(weights)[..., 0, :]


def margins(weights: Sequence[Tensor], z: Tensor) -> Tensor:
    """Margins m_i = <w, z_i> with z (n, d) the rows y_i x_i, (*runs, n)."""
    return predictor(weights) @ z.mT


def check_shapes(weights: Sequence[Tensor], z: Tensor | None = None) -> None:
    """Raise `ShapeMismatch`, naming layers and shapes, unless the layers compose (and read the
    columns of z)."""
    if not weights:
        raise ShapeMismatch("network has 0 layers, needed at least 1: give a list of matrices")
    for k, (below, layer) in enumerate(zip(weights[:-1], weights[1:], strict=True)):
        if layer.shape[-1] != below.shape[-2] or layer.shape[:-2] != below.shape[:-2]:
            raise ShapeMismatch(
                f"layer {k + 2} has shape {tuple(layer.shape)} on top of layer {k + 1} of shape "
                f"{tuple(below.shape)}, "
                "needed as many columns as that has rows and the same runs: change one of the two"
            )
    if z is not None and z.shape[-1] != weights[0].shape[-1]:
        raise ShapeMismatch(
            f"data have shape {tuple(z.shape)} and layer 1 has shape {tuple(weights[0].shape)}, "
            "needed one column of layer 1 for each feature: change dims[0]"
        )


def checked_target(weights: Sequence[Tensor], target: Tensor) -> Tensor:
    """The target with the runs of the weights, where shapes fit and all is finite."""
    check_shapes(weights)
    shape = (*weights[0].shape[:-2], weights[-1].shape[-2], weights[0].shape[-1])
    if target.shape[-2:] != shape[-2:] or target.shape[:-2] not in ((), shape[:-2]):
        raise ShapeMismatch(
            f"target has shape {tuple(target.shape)}, needed {shape}, with or without runs: "
            "change it"
        )
    if not all(bool(A.isfinite().all()) for A in (target, *weights)):
        raise NonFinite(
            "target or weights have a NaN or an infinity, needed finite numbers: mend the input"
        )
    return target.expand(shape)


def products_above(weights: Sequence[Tensor]) -> list[Tensor]:
    """Products W_L ... W_{k+1}, (*runs, d_L, d_k) k = 0..L: from the whole product to the
    identity."""
    last = weights[-1]
    rows = [
        torch.eye(last.shape[-2], dtype=last.dtype, device=last.device).expand(
            *last.shape[:-2], -1, -1
        )
    ]
    for W in reversed(weights):
        rows.append(rows[-1] @ W)
    return rows[::-1]


def flatten(weights: list[torch.Tensor]) -> torch.Tensor:
    """Stack layers (*runs, d_{k+1}, d_k) into rows (R, P), R the number of runs (1 for no leading
    dimension)."""
    if weights[-1].shape[-2] != 1:
        raise ShapeMismatch(
            f"the last layer has {weights[-1].shape[-2]} rows; a network with one output needs 1"
        )
    runs = math.prod(weights[0].shape[:-2])
    return torch.cat([W.reshape(runs, -1) for W in weights], dim=1)


def unflatten(theta: torch.Tensor, dims: list[int]) -> list[torch.Tensor]:
    """Views (*lead, d_{k+1}, d_k) of the layers inside theta (*lead, P)."""
    shapes = [(outer, inner) for inner, outer in zip(dims, dims[1:], strict=False)]
    parts = theta.split([outer * inner for outer, inner in shapes], dim=-1)
    return [part.view(*theta.shape[:-1], *shape) for part, shape in zip(parts, shapes, strict=True)]
