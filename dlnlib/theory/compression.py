r"""Y23: from an orthogonal start, descent on ||W_L ... W_1 - Phi||_F^2 / 2 is a small problem and
one repeated number.

With whitened inputs, X X^T = I, ||Y - W X||_F^2 / 2 is that function plus a constant, Phi = Y X^T
(d_L, d). Let layers be W_l(0) = eps_l times an orthogonal matrix, d x d but for the last, and
either (a) d_L = d and rank Phi <= r, or (b) d_L = r < d and W_L(0) W_L(0)^T = eps_L^2 I. Then
orthogonal F_0, ..., F_L, fixed in time, give for every step size and weight decay
    F_l^T W_l(t) F_{l-1} = blockdiag(S_l(t), rho_l(t) I_m),   S_l (2r, 2r),   m = d - 2r,
in case (b) with F_L = I and a last layer [S_L(t), 0], S_L (r, 2r). The S_l descend to the small
target F_L1^T Phi F_01 (F_l1: first 2r columns), the rho_l to 0 as a network of width one (rho_L = 0
in case (b)). Source: Y23, re-derived.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dlnlib.errors import BadParameter, HypothesisNotMet, ShapeMismatch
from dlnlib.networks.product import checked_target, end_to_end

__all__ = ["TOLERANCE", "Compressed", "compress", "invariant_frame", "restrict", "whitened_target"]

# relative, of hypotheses that hold exactly on paper: rounding at width 1000 is 1e-14
TOLERANCE = 1e-12


@dataclass(frozen=True)
class Compressed:
    """A network and its target split in two independent problems, both for `losses.Factorisation`;
    k = 2r.

    weights, target            the small problem: layers (*runs, k, k), the last (*runs, r, k) in
                               case (b).
    rest, rest_target          the repeated singular values rho_l as a network of width one, (*runs,
                               1, 1), target 0.
    multiplicity               m = d - k: how often each rho_l occurs.
    frames                     F_0, ..., F_L, (*runs, d_l, d_l); the first k columns belong to the
                               small problem.
    """

    weights: list[Tensor]
    target: Tensor
    rest: list[Tensor]
    rest_target: Tensor
    multiplicity: int
    frames: list[Tensor]

    def expand(self, weights: Sequence[Tensor]) -> Tensor:
        """f_C = F_L1 S_L ... S_1 F_01^T, (..., d_L, d), of small weights, such as those of a whole
        trajectory."""
        S = end_to_end(weights)
        return self.frames[-1][..., : S.shape[-2]] @ S @ self.frames[0][..., : S.shape[-1]].mT

    def gap(self, rest: Sequence[Tensor]) -> Tensor:
        """||W_L ... W_1 - f_C||_F = sqrt(m) prod_l |rho_l|, (...); zero in case (b)."""
        return math.sqrt(self.multiplicity) * end_to_end(rest)[..., 0, 0].abs()

    def restore(self, weights: Sequence[Tensor], rest: Sequence[Tensor]) -> list[Tensor]:
        """All layers of the full network from both small problems at the same steps, (..., d_{l+1},
        d_l)."""
        layers = []
        for S, rho, out, into in zip(weights, rest, self.frames[1:], self.frames[:-1], strict=True):
            B = S.new_zeros(*S.shape[:-2], out.shape[-1], into.shape[-1])
            B[..., : S.shape[-2], : S.shape[-1]] = S
            B[..., S.shape[-2] :, S.shape[-1] :] = rho * torch.eye(
                out.shape[-1] - S.shape[-2], self.multiplicity
            ).to(S)
            layers.append(out @ B @ into.mT)
        return layers

    def blocks(self, weights: Sequence[Tensor]) -> list[Tensor]:
        """F_l^T W_l F_{l-1} of any layers of the full shapes: what the theorem says is block
        diagonal."""
        return [
            b.mT @ W @ a for W, a, b in zip(weights, self.frames[:-1], self.frames[1:], strict=True)
        ]


def compress(weights: Sequence[Tensor], target: Tensor, rank: int | None = None) -> Compressed:
    """The exact small problem of an orthogonal start; `rank` is r, or any larger number with 2 rank
    < d.

    By default the numerical rank of the target in case (a) (the largest of all runs), d_L in case
    (b). Raises HypothesisNotMet (layers not orthogonal, rank of the target above `rank`, d <= 2
    rank), ShapeMismatch, BadParameter, NonFinite. Cost: 3 L products of d x d and, in case (a), the
    singular value decomposition of the target, once.
    """
    target = checked_target(weights, target)
    _check_square(weights)
    _check_orthogonal(weights)
    needed, d = target.shape[-2:]
    if needed == d:
        s = torch.linalg.svdvals(target)
        needed = max(1, int((s > TOLERANCE * s[..., :1]).sum(-1).max()))
    rank = needed if rank is None else rank
    if rank < needed:
        raise HypothesisNotMet(
            f"target needs rank {needed}, found rank {rank}: raise the rank, or truncate the target"
        )
    if 2 * rank >= d:
        raise HypothesisNotMet(
            f"width is {d}, needed above 2 rank = {2 * rank}: widen the layers or lower the rank"
        )
    return restrict(weights, target, invariant_frame(weights, target, rank), 2 * rank)


def invariant_frame(weights: Sequence[Tensor], target: Tensor, rank: int) -> Tensor:
    """Orthogonal F_0 (*runs, d, d), its last d - 2 rank columns in N(Phi) and N(Phi^T W(0));
    N(W(0)) in case (b).

    Here W(0) is the product. A target of rank above `rank` counts as its best approximation of that
    rank: no promise.
    """
    target, product = checked_target(weights, target), end_to_end(weights)
    if target.shape[-2] < target.shape[-1]:
        spanning = torch.cat([target.mT, product.mT], dim=-1)
    else:
        U, _, Vh = torch.linalg.svd(target)
        spanning = torch.cat([Vh[..., :rank, :].mT, product.mT @ U[..., :rank]], dim=-1)
    # The leading columns of Q span at least these, dependent or not: nothing about ranks has to be
    # decided.
    return torch.linalg.qr(spanning, mode="complete").Q


def restrict(weights: Sequence[Tensor], target: Tensor, frame: Tensor, size: int) -> Compressed:
    """Small and remaining problem for the first `size` columns of an orthogonal frame F_0 (*runs,
    d, d).

    Nothing is checked but shapes, so that controls (another subspace, too small a rank, a start
    that is not orthogonal) come through here too; the two problems are exact for what `compress`
    accepts. F_l = W_l(0) F_{l-1} / eps_l.
    """
    target = checked_target(weights, target)
    _check_square(weights)
    outputs, d = target.shape[-2:]
    if frame.shape[-2:] != (d, d):
        raise ShapeMismatch(
            f"frame has shape {tuple(frame.shape)}, needed {(d, d)}, with or without runs: change "
            "it"
        )
    least = outputs if outputs < d else 1
    if not least <= size < d:
        raise BadParameter(f"size is {size}, needed a number from {least} to {d - 1}: change it")
    scales = [
        torch.linalg.matrix_norm(W)[..., None, None] / math.sqrt(W.shape[-2]) for W in weights
    ]
    frames, one = [frame.expand(*target.shape[:-2], d, d)], torch.eye(size).to(target)
    for W, eps in zip(weights, scales, strict=True):
        frames.append(W / eps @ frames[-1])
    small, rest = [eps * one for eps in scales], list(scales)
    if outputs < d:  # case (b): the last layer sends all but the small block to zero
        frames[-1] = torch.eye(outputs).to(target).expand(*target.shape[:-1], -1)
        small[-1], rest[-1] = weights[-1] @ frames[-2][..., :size], torch.zeros_like(scales[-1])
    projected = frames[-1][..., :size].mT @ target @ frames[0][..., :size]
    return Compressed(small, projected, rest, torch.zeros_like(scales[0]), d - size, frames)


def whitened_target(x: Tensor, y: Tensor) -> Tensor:
    """Phi = Y X^T (d_L, d) of data X (d, n) and Y (d_L, n); HypothesisNotMet unless X X^T = I."""
    error = (x @ x.mT - torch.eye(x.shape[-2]).to(x)).abs().max().item()
    if not error <= TOLERANCE:
        raise HypothesisNotMet(
            f"X X^T is off I by {error:.1e}, needed at most {TOLERANCE:.0e}: whiten the inputs"
        )
    return y @ x.mT


def _check_square(weights: Sequence[Tensor]) -> None:
    d = weights[0].shape[-1]
    for k, W in enumerate(weights, 1):
        rows = W.shape[-2]
        if rows != d and (rows > d or k < len(weights)):
            raise ShapeMismatch(
                f"layer {k} has {rows} rows, needed {d} (the last one: or fewer): use one width"
            )


def _check_orthogonal(weights: Sequence[Tensor]) -> None:
    """W_l W_l^T = eps_l^2 I with eps_l > 0 in every layer; with equal widths that is H2 of Y23."""
    for k, W in enumerate(weights, 1):
        gram = W @ W.mT
        scale = torch.diagonal(gram, dim1=-2, dim2=-1).mean(-1)[..., None, None]
        error = (
            ((gram - scale * torch.eye(W.shape[-2]).to(W)).abs() / scale)
            .nan_to_num(math.inf)
            .max()
            .item()
        )
        if not error <= TOLERANCE:
            raise HypothesisNotMet(
                f"layer {k} has W W^T off a positive multiple of I by {error:.1e}, relative, "
                f"needed at most {TOLERANCE:.0e}: start from networks.orthogonal"
            )
