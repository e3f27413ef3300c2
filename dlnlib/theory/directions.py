r"""How the direction of a deep linear network settles: constants of what separates W/||W|| from its
limit.

Every gradient dR/dW_k is of rank one, and <W_k, -dR/dW_k> is the same for all layers. So with tau_k
the coefficient of W_k along its own gradient, cos(W, -grad R) = L / (||W|| (sum_k tau_k^-2)^{1/2})
exactly; what keeps the cosine from 1 is what W_k has outside: its rank-one gap, whose limit the
conserved balances fix, and what no support vector sees. One output; nothing here sees more of a run
than the directions handed in. All derived here.
"""

from __future__ import annotations

import torch
from torch import Tensor

from dlnlib.errors import BadParameter, ShapeMismatch
from dlnlib.measure.layers import balance, norm, top_singular
from dlnlib.theory.balance import gap_limit

__all__ = [
    "norm_shares",
    "unseen_part",
    "alignment_remainder",
    "second_order",
    "margin_deficits",
    "balanced_tail",
    "gradient_cosine",
]


def norm_shares(start: list[Tensor], norm: Tensor) -> list[Tensor]:
    """||W_k||_F^2 / ||W||^2 when ||W|| = `norm` (*times, *runs): 1/L + d_k/||W||^2, exactly, at any
    time.

    d_{k+1} - d_k = tr G_k is conserved, and the d_k sum to zero.
    """
    squares = torch.stack([W.square().sum((-2, -1)) for W in start])
    return list(
        1 / len(start)
        + (squares - squares.mean(0)).reshape(
            len(start), *(1,) * (norm.ndim - squares.ndim + 1), *squares.shape[1:]
        )
        / norm**2
    )


def unseen_part(first: Tensor, e: Tensor, support: Tensor) -> Tensor:
    """|| e^T W_1 (I - P) ||^2, P the projection on the span of the support vectors (|S|, d);
    (*runs).

    Frozen once only support vectors have weight; 0 in the limit if they span the data and e^T W_1
    lies in that span.
    """
    _, s, Vh = torch.linalg.svd(support, full_matrices=False)
    basis = Vh[s > 1e-10 * s[0]]
    row = (e[..., None, :] @ first)[..., 0, :]
    return (row - (row @ basis.T) @ basis).square().sum(-1)


def alignment_remainder(start: list[Tensor], late: list[Tensor], support: Tensor) -> Tensor:
    """C = lim ||W||^2 sin^2(W, -grad R) = sum_k gap_k + || e_1^T W_1 (I - P) ||^2, of shape
    (*runs).

    Then 1 - cos ~ C / (2 ||W||^2), and the path of W/||W|| has ~ sqrt(C) / ||W|| left to go,
    straight in the end. `late`: weights late in the run, for e_k = lim v_{k+1} (and W_1, where the
    support vectors do not span); their distance from the limit enters at order ||W||^-2. Two layers
    or more.
    """
    if len(start) < 2:
        raise BadParameter("1 layer found, needed 2 or more: one layer has neither gap nor balance")
    e = [top_singular(W)[2] for W in late[1:]]
    return sum(gap_limit(start, e)) + unseen_part(late[0], e[0], support)


def second_order(start: list[Tensor], C: Tensor) -> Tensor:
    """B such that the laws of `remainder` hold up to a relative error of about B / ||W||^2, from
    the balances.

    tau_k^2 = ||W||^2/L + O(sum_j ||G_j||_F), twice expanded, relative to C; a bound up to a factor
    of order one.
    """
    size = sum((torch.linalg.matrix_norm(G) for G in balance(start)), torch.zeros_like(C))
    return 2 * len(start) * (size + C) ** 2 / C


def margin_deficits(depth: int, norm, psi, C, dual: Tensor) -> tuple[Tensor, Tensor]:
    r"""log(a/.) for the smoothed margin psi/||W||^L and the margin q_min/||W||^L, a = gamma/L^{L/2}
    their limit.

    L C/(2 ||W||^2) + H/psi, and the same less log(1/max p)/psi; psi = log(1/sum exp(-q_i)), `dual`
    the limit of softmax weights, H its entropy. Integrates d log(smoothed) = L [(1 + H/psi)/cos^2 -
    1] d log ||W|| from here to infinity.
    """
    kept = dual[dual > 0]
    entropy, least = -(kept * kept.log()).sum(), -kept.max().log()
    weights = depth * torch.as_tensor(C) / (2 * torch.as_tensor(norm) ** 2)
    return weights + entropy / psi, weights + (entropy - least) / psi


def balanced_tail(depth: int, offset: Tensor, norm) -> Tensor:
    """||p*|| L^{(L-1)/2} ||W||^-L: what is left of the path of W/||W|| from an exactly balanced
    start.

    All layers are then of rank one and norm ||W||/sqrt(L), and only v_1 = w/||w|| still turns,
    ||p*||/||w|| from u.
    """
    return offset.norm() * depth ** ((depth - 1) / 2) * torch.as_tensor(norm) ** -depth


def gradient_cosine(weights: list[Tensor], gradients: list[Tensor]) -> Tensor:
    """L / (||W|| (sum_k tau_k^-2)^{1/2}), tau_k = <W_k, g_k>/||g_k||: the cosine of W and g for
    products, (*runs)."""
    if len(weights) != len(gradients):
        raise ShapeMismatch(
            f"{len(weights)} layers and {len(gradients)} gradients found, needed as many"
        )
    tau = [
        (W * g).sum((-2, -1)) / torch.linalg.matrix_norm(g)
        for W, g in zip(weights, gradients, strict=True)
    ]
    return len(weights) / (norm(weights) * torch.stack(tau).pow(-2).sum(0).sqrt())
