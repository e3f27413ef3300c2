"""Initial weights of deep linear networks W_L ... W_1.

`weights` is a list, weights[k] of shape (*runs, d_{k+1}, d_k) for `dims` = [d_0, ..., d_L], k from
0, float64. Draws are made on the CPU by generators of their own and then moved, so that a seed
means the same on every device. Run i (in flat order) of a draw with seed s is exactly the single
run with seed s + i.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from dlnlib.errors import BadParameter, ShapeMismatch

__all__ = ["gaussian", "orthogonal", "balanced", "with_product", "aligned"]


def gaussian(
    dims: Sequence[int], seed: int, scale: float = 1.0, runs: Sequence[int] = (), device=None
) -> list[Tensor]:
    """Independent normal entries of standard deviation scale / sqrt(d_k) in the layer that reads
    d_k inputs."""
    weights = _normal(_layer_shapes(dims), seed, runs)
    return [(W * (scale / math.sqrt(W.shape[-1]))).to(device) for W in weights]


def orthogonal(
    dims: Sequence[int], seed: int, scale: float = 1.0, runs: Sequence[int] = (), device=None
) -> list[Tensor]:
    """Uniform random layers with W^T W = scale^2 I, or W W^T = scale^2 I in a layer with fewer rows
    than columns."""
    drawn = _normal(_layer_shapes(dims), seed, runs)
    return [
        (scale * (_frame(A) if A.shape[-2] >= A.shape[-1] else _frame(A.mT).mT)).to(device)
        for A in drawn
    ]


def balanced(
    dims: Sequence[int], seed: int, scale: float = 1.0, runs: Sequence[int] = (), device=None
) -> list[Tensor]:
    """Random layers with W_{k+1}^T W_{k+1} = W_k W_k^T to rounding, of rank r = min(dims) (one with
    one output).

    The product is scale^L A, A the best rank-r approximation of a d_L x d_0 matrix with normal
    entries of variance 1/d_0; inner singular frames are uniform. So JT18's D is 0 at this start.
    """
    dims = _checked(dims)
    shapes = [(dims[-1], dims[0]), *_frame_shapes(dims)]
    A, *drawn = _normal(shapes, seed, runs)
    U, s, Vh = torch.linalg.svd(A / math.sqrt(dims[0]), full_matrices=False)
    r = min(dims)
    weights = _balanced_layers(U[..., :r], s[..., :r], Vh[..., :r, :], drawn, len(dims) - 1)
    return [(scale * W).to(device) for W in weights]


def with_product(product: Tensor, dims: Sequence[int], seed: int = 0) -> list[Tensor]:
    """Balanced layers with a chosen product: its predictor (*runs, d_0) for one output, else
    (*runs, d_L, d_0).

    Inner singular frames are uniform random. Raises `ShapeMismatch`, and `BadParameter` when the
    rank of the product is larger than the smallest width.
    """
    dims = _checked(dims)
    W = product[..., None, :] if dims[-1] == 1 else product
    if W.ndim < 2 or W.shape[-2:] != (dims[-1], dims[0]):
        needed = f"(..., {dims[0]})" if dims[-1] == 1 else f"(..., {dims[-1]}, {dims[0]})"
        raise ShapeMismatch(
            f"product has shape {tuple(product.shape)}, needed {needed}: change the product or dims"
        )
    U, s, Vh = torch.linalg.svd(W.to(torch.float64), full_matrices=False)
    r = min(dims)
    if s.shape[-1] > r and bool((s[..., r] > 1e-12 * s[..., 0]).any()):
        raise BadParameter(
            f"product has rank above the smallest width {r}: widen the layers or lower the rank"
        )
    drawn = [A.to(W.device) for A in _normal(_frame_shapes(dims), seed, W.shape[:-2])]
    return _balanced_layers(U[..., :r], s[..., :r], Vh[..., :r, :], drawn, len(dims) - 1)


def aligned(
    dims: Sequence[int],
    seed: int,
    norms: float | Sequence[float] = 1.0,
    runs: Sequence[int] = (),
    device=None,
) -> list[Tensor]:
    """Rank-one aligned layers W_k = s_k u_k u_{k-1}^T with uniform random unit vectors u_0, ...,
    u_L.

    `norms` are the s_k, one number for all layers or one a layer; equal ones make the layers
    balanced.
    """
    dims = _checked(dims)
    norms = [norms] * (len(dims) - 1) if isinstance(norms, (int, float)) else list(norms)
    if len(norms) != len(dims) - 1:
        raise BadParameter(
            f"norms has {len(norms)} entries, needed {len(dims) - 1}: give one a layer"
        )
    u = [_frame(A) for A in _normal([(d, 1) for d in dims], seed, runs)]
    return [(s * b @ a.mT).to(device) for s, a, b in zip(norms, u[:-1], u[1:], strict=True)]


def _checked(dims: Sequence[int]) -> list[int]:
    if len(dims) < 2 or min(dims) < 1:
        raise BadParameter(
            f"dims is {list(dims)}, needed at least two positive sizes d_0, ..., d_L: give the "
            "widths"
        )
    return list(dims)


def _layer_shapes(dims: Sequence[int]) -> list[tuple[int, int]]:
    dims = _checked(dims)
    return list(zip(dims[1:], dims[:-1], strict=True))


def _frame_shapes(dims: Sequence[int]) -> list[tuple[int, int]]:
    return [(d, min(dims)) for d in dims[1:-1]]


def _normal(shapes: Sequence[tuple[int, int]], seed: int, runs: Sequence[int]) -> list[Tensor]:
    """Standard normal matrices of the given shapes, (*runs, rows, columns), each run from its own
    generator."""
    drawn = []
    for i in range(math.prod(runs)):
        generator = torch.Generator().manual_seed(seed + i)
        drawn.append(
            [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]
        )
    return [
        torch.stack(layer).reshape(*runs, *layer[0].shape) for layer in zip(*drawn, strict=True)
    ]


def _frame(A: Tensor) -> Tensor:
    """Orthonormal columns, uniformly distributed when A (..., d, r), r <= d, is standard normal."""
    Q, R = torch.linalg.qr(A)
    return Q * torch.sign(torch.diagonal(R, dim1=-2, dim2=-1))[..., None, :]


def _balanced_layers(
    U: Tensor, s: Tensor, Vh: Tensor, drawn: Sequence[Tensor], depth: int
) -> list[Tensor]:
    """Layers F_k diag(s)^(1/L) F_{k-1}^T with F_0 = V, F_L = U and random frames between."""
    frames = [Vh.mT, *(_frame(A) for A in drawn), U]
    root = (s ** (1 / depth))[..., None, :]
    return [(b * root) @ a.mT for a, b in zip(frames[:-1], frames[1:], strict=True)]
