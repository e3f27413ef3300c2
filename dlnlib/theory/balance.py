"""What the conserved balances G_k = W_{k+1}^T W_{k+1} - W_k W_k^T of a start say: bounds at all
times, and limits.

Nothing here sees a trajectory. `weights[k]` has shape (*runs, d_{k+1}, d_k). Source: JT18, and
derived here.
"""

from __future__ import annotations

import torch

from dlnlib.errors import BadParameter

__all__ = [
    "rank_one_bound",
    "gap_bounds",
    "alignment_bound",
    "gap_limit",
    "misalignment_limit",
    "product_misalignment_limit",
]


# --- rank one and alignment -----------------------------------------------------------------------


def rank_one_bound(weights: list[torch.Tensor]) -> torch.Tensor:
    """D = max_k ||W_k||_F^2 - ||W_L||_F^2 + sum_k ||G_k||_2 at the start, of shape (*runs)
    (JT18-Lem2)."""
    frobenius = torch.stack([_squared(W) for W in weights])
    spectral = [torch.linalg.eigvalsh(G).abs().amax(-1) for G in balances(weights)]
    return frobenius.amax(0) - frobenius[-1] + sum(spectral)


def gap_bounds(weights: list[torch.Tensor]) -> list[torch.Tensor]:
    """Bounds of ||W_k||_F^2 - ||W_k||_2^2 at all times, one a layer, (*runs) each, and each at most
    D.

    sum_{j >= k} (lambda_max(G_j) - tr G_j) at the start: Weyl's inequality as in JT18-Lem2, with
    the largest eigenvalue where the lemma has the norm. One output. Derived here.
    """
    bounds = [torch.zeros_like(weights[-1][..., 0, 0])]
    for G in reversed(balances(weights)):
        bounds.append(
            bounds[-1] + torch.linalg.eigvalsh(G)[..., -1] - G.diagonal(dim1=-2, dim2=-1).sum(-1)
        )
    return bounds[::-1]


def alignment_bound(start: list[torch.Tensor], norms: list[torch.Tensor]) -> list[torch.Tensor]:
    """Upper bounds of the misalignments 1 - <v_{k+1}, u_k>^2, one for each pair of adjacent layers
    (JT18-Lem2 C2).

    (D + ||W_{k+1}(0)||_2^2 + ||W_k(0)||_2^2) / ||W_{k+1}||_2^2, with norms[k] = ||W_{k+1}||_2 of
    shape (*times, *runs).
    """
    if len(norms) != len(start) - 1:
        raise BadParameter(
            f"{len(norms)} norms for {len(start)} layers found, needed those of layers 2 to L"
        )
    D = rank_one_bound(start)
    first = [torch.linalg.matrix_norm(W, 2) ** 2 for W in start]
    return [(D + first[k + 1] + first[k]) / norm**2 for k, norm in enumerate(norms)]


def gap_limit(start: list[torch.Tensor], directions: list[torch.Tensor]) -> list[torch.Tensor]:
    """Limits of ||W_k||_F^2 - ||W_k||_2^2, shape (*runs), given e_k = lim v_{k+1} of shape (*runs,
    d_k), k < L.

    With v_{k+1} at some times, (*times, *runs, d_k), for e_k: upper bounds at those times, short by
    O(||W||^-2).

    gap_k = sum_{j >= k} (e_j^T G_j e_j - tr G_j): the trace of G_k is the difference of the squared
    Frobenius norms, and W_k W_k^T = W_{k+1}^T W_{k+1} - G_k gives ||W_k||_2^2 = ||W_{k+1}||_2^2 -
    e_k^T G_k e_k + O(||W||^-2). One output: the last gap is 0. The sign of e_k is free. Derived
    here.
    """
    gaps = [torch.zeros_like(start[-1][..., 0, 0])]
    for G, e in zip(reversed(balances(start)), reversed(directions), strict=True):
        trace = G.diagonal(dim1=-2, dim2=-1).sum(-1)
        gaps.append(gaps[-1] + (e * _apply(G, e)).sum(-1) - trace)
    return list(torch.broadcast_tensors(*gaps[::-1]))


def misalignment_limit(
    start: list[torch.Tensor], directions: list[torch.Tensor]
) -> list[torch.Tensor]:
    """Limits of (1 - <v_{k+1}, u_k>^2) ||W_{k+1}||_2^4 = ||G_k e_k - <e_k, G_k e_k> e_k||^2, with
    e_k = lim v_{k+1}.

    First-order perturbation of the top eigenvector of W_{k+1}^T W_{k+1} by -G_k; relative error
    O(||W||^-2). Derived.
    """
    limits = []
    for G, e in zip(balances(start), directions, strict=True):
        g = _apply(G, e)
        limits.append((g - (g * e).sum(-1, keepdim=True) * e).square().sum(-1))
    return limits


def product_misalignment_limit(
    start: list[torch.Tensor], directions: list[torch.Tensor]
) -> torch.Tensor:
    """Limit of (1 - |<w / prod_k ||W_k||_F, v_1>|) ||W_1||_2^2 = (1/2) sum_k gap_k, of shape
    (*runs) (JT18-Thm1 C5).

    ||W_k||_F = ||W_k||_2 (1 + gap_k / (2 ||W_k||_2^2)), and the angles only enter at order
    ||W||^-4. Derived.
    """
    return sum(gap_limit(start, directions)) / 2


def balances(weights: list[torch.Tensor]) -> list[torch.Tensor]:
    """G_k = W_{k+1}^T W_{k+1} - W_k W_k^T, (*runs, d_k, d_k), k < L."""
    return [
        above.mT @ above - below @ below.mT
        for below, above in zip(weights, weights[1:], strict=False)
    ]


def _apply(G: torch.Tensor, e: torch.Tensor) -> torch.Tensor:
    return (G @ e[..., None])[..., 0]


def _squared(W: torch.Tensor) -> torch.Tensor:
    return W.square().sum((-2, -1))
