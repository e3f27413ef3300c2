"""What a network makes of classes of data, layer by layer: compression C_l within them,
discrimination D_l between them.

Features are z^l = W_l ... W_1 x, l = 0..L, one sample a column: (*runs, d_l, N). `labels` (N,)
names classes 0..K-1.
    Sigma_W = (1/N) sum_i (z_i - mu_{k(i)}) (z_i - mu_{k(i)})^T,
    Sigma_B = (1/K) sum_k (mu_k - mu) (mu_k - mu)^T,
    C = Tr Sigma_W / Tr Sigma_B,      D = 1 - max_{k != k'} cos(mu_k, mu_k'),
mu_k the class means, mu the mean of all samples. Source: W23 (definitions read on its project page,
and in its code).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from dlnlib.data.dataset import one_hot
from dlnlib.errors import BadData, NonFinite, ShapeMismatch
from dlnlib.networks.product import check_shapes

__all__ = [
    "layer_features",
    "class_means",
    "class_scatter",
    "class_compression",
    "class_cosines",
    "class_discrimination",
    "largest_off_diagonal",
]

TOLERANCE = 1e-12  # relative: a norm below it is zero but for rounding


# --- what is measured -----------------------------------------------------------------------------


def layer_features(weights: Sequence[Tensor], x: Tensor) -> list[Tensor]:
    """z^0 = x, z^1 = W_1 x, ..., z^L, each (*runs, d_l, N), of inputs x (d_0, N)."""
    check_shapes(weights, x.mT)
    layers = [x.expand(*weights[0].shape[:-2], *x.shape[-2:])]
    for W in weights:
        layers.append(W @ layers[-1])
    return layers


def class_means(z: Tensor, labels: Tensor) -> Tensor:
    """mu_k as columns, (*runs, d, K)."""
    Y = one_hot(labels).to(z.device)
    if z.ndim < 2 or z.shape[-1] != Y.shape[-1]:
        raise ShapeMismatch(
            f"features have shape {tuple(z.shape)}, needed {Y.shape[-1]} columns: one a label"
        )
    if not bool(z.isfinite().all()):
        raise NonFinite("features have a NaN or an infinity, needed finite numbers: mend the input")
    return z @ (Y / Y.sum(-1, keepdim=True)).mT


def class_scatter(z: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Tr Sigma_W and Tr Sigma_B, each (*runs). BadData where a class has one sample: it has no
    scatter to compress."""
    means = class_means(z, labels)
    counts = torch.bincount(torch.as_tensor(labels))
    if int(counts.min()) < 2:
        raise BadData(
            f"class {int(counts.argmin())} has 1 sample, needed at least 2 in each class: add "
            "samples"
        )
    within = (z - means[..., torch.as_tensor(labels)]).square().sum((-2, -1)) / z.shape[-1]
    between = (means - z.mean(-1, keepdim=True)).square().sum((-2, -1)) / means.shape[-1]
    return within, between


def class_compression(z: Tensor, labels: Tensor) -> Tensor:
    """C = Tr Sigma_W / Tr Sigma_B, (*runs); BadData also where all class means coincide."""
    within, between = class_scatter(z, labels)
    if not bool((between > TOLERANCE**2 * z.square().sum((-2, -1)) / z.shape[-1]).all()):
        raise BadData("class means coincide, needed different ones: C is not defined")
    return within / between


def class_cosines(z: Tensor, labels: Tensor) -> Tensor:
    """cos(mu_k, mu_k') for all pairs of classes, (*runs, K, K); BadData where the mean of a class
    is zero."""
    means = class_means(z, labels)
    size = torch.linalg.vector_norm(means, dim=-2, keepdim=True)
    if not bool(
        (
            size[..., 0, :] > TOLERANCE * torch.linalg.vector_norm(z, dim=-2).amax(-1, keepdim=True)
        ).all()
    ):
        raise BadData(
            "the mean of a class is zero, needed a direction: D is not defined (are the data "
            "centred?)"
        )
    unit = means / size
    return unit.mT @ unit


def class_discrimination(z: Tensor, labels: Tensor) -> Tensor:
    """D = 1 - max_{k != k'} cos(mu_k, mu_k'), (*runs)."""
    return 1 - largest_off_diagonal(class_cosines(z, labels))


def largest_off_diagonal(A: Tensor) -> Tensor:
    """max_{i != j} A_ij of matrices (..., K, K), K at least 2."""
    return A.masked_fill(torch.eye(A.shape[-1], dtype=torch.bool, device=A.device), -math.inf).amax(
        (-2, -1)
    )
