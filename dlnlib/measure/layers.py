"""What is measured on weights: balance, rank-one gap, alignment, direction, margin, angles, path
length.

`weights[k]` has shape (*runs, d_{k+1}, d_k), where the leading dimensions may be times as well as
runs; every result keeps them. Angles come from sines and gaps from trailing singular values, so
that small values keep their digits. A zero matrix or vector, which has no direction, raises
BadParameter. Nothing here is meant to be differentiated.
"""

from __future__ import annotations

import torch

from dlnlib.errors import BadParameter, ShapeMismatch

__all__ = [
    "norm",
    "balance",
    "balance_drift",
    "top_singular",
    "rank_one_gap",
    "stable_rank",
    "rank_one_error",
    "misalignment",
    "alignment",
    "product_misalignment",
    "product_alignment",
    "perpendicular",
    "direction_error",
    "margin",
    "kkt_residual",
    "principal_sines",
    "path_length",
    "commutator_score",
    "path_commutator_score",
    "align_score",
    "inv_score",
]


# --- all layers -----------------------------------------------------------------------------------


def norm(weights: list[torch.Tensor]) -> torch.Tensor:
    """||W||, all weights stacked, of shape (*runs)."""
    return torch.stack([_frobenius(W) for W in weights]).square().sum(0).sqrt()


def balance(weights: list[torch.Tensor]) -> list[torch.Tensor]:
    """G_k = W_{k+1}^T W_{k+1} - W_k W_k^T, of shape (*runs, d_k, d_k), constant along the flow
    (JT18-eq2)."""
    return [above.mT @ above - below @ below.mT for below, above in _adjacent(weights)]


def balance_drift(weights: list[torch.Tensor], start: list[torch.Tensor]) -> torch.Tensor:
    """max_k max_ij |G_k - G_k(0)| / ||W||^2, of shape (*runs): rounding alone gives about 1e-16; 0
    for one layer."""
    if len(weights) == 1:
        return torch.zeros_like(norm(weights))
    moved = [
        (G - G0).abs().amax((-2, -1))
        for G, G0 in zip(balance(weights), balance(start), strict=True)
    ]
    return torch.stack(moved).amax(0) / _positive(norm(weights), "the weights") ** 2


def path_length(weights: list[torch.Tensor]) -> torch.Tensor:
    """Length of the curve W/||W|| through the recorded points (T, *runs, ...), summed up to each:
    (T, *runs)."""
    runs = weights[0].shape[:-2]
    theta = torch.cat([W.reshape(*runs, -1) for W in weights], dim=-1)
    theta = theta / _positive(torch.linalg.vector_norm(theta, dim=-1, keepdim=True), "the weights")
    chords = torch.linalg.vector_norm(theta[1:] - theta[:-1], dim=-1)
    return torch.cat(
        [torch.zeros_like(chords[:1]) if len(chords) else theta.new_zeros(runs), chords]
    ).cumsum(0)


# --- rank one -------------------------------------------------------------------------------------


def top_singular(W: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """u (*runs, a), sigma (*runs), v (*runs, b) of W (*runs, a, b); the common sign of u and v is
    arbitrary."""
    U, s, Vh = torch.linalg.svd(W.detach(), full_matrices=False)
    _positive(s[..., 0], "a layer")
    return U[..., 0], s[..., 0], Vh[..., 0, :]


def rank_one_gap(W: torch.Tensor) -> torch.Tensor:
    """||W||_F^2 - ||W||_2^2 as the sum of the squared trailing singular values, of shape (*runs); 0
    for W = 0."""
    return torch.linalg.svdvals(W.detach())[..., 1:].square().sum(-1)


def stable_rank(W: torch.Tensor) -> torch.Tensor:
    """||W||_F^2 / ||W||_2^2, of shape (*runs)."""
    return 1 + rank_one_gap(W) / _positive(torch.linalg.matrix_norm(W, 2), "a layer") ** 2


def rank_one_error(W: torch.Tensor) -> torch.Tensor:
    """|| W/||W||_F - u v^T ||_F = sqrt(2 gap / (||W||_F (||W||_F + ||W||_2))), of shape (*runs)
    (JT18-Thm1 C3)."""
    whole = _positive(_frobenius(W), "a layer")
    return (2 * rank_one_gap(W) / (whole * (whole + torch.linalg.matrix_norm(W, 2)))).sqrt()


# --- alignment ------------------------------------------------------------------------------------


def misalignment(weights: list[torch.Tensor]) -> list[torch.Tensor]:
    """1 - <v_{k+1}, u_k>^2 for each pair of adjacent layers, each (*runs), as a squared sine
    (JT18-Thm1 C4)."""
    return [
        _sine_squared(top_singular(below)[0], top_singular(above)[2])
        for below, above in _adjacent(weights)
    ]


def alignment(weights: list[torch.Tensor]) -> list[torch.Tensor]:
    """|<v_{k+1}, u_k>| for each pair of adjacent layers, each (*runs); near 1 look at
    `misalignment` instead."""
    return [
        (top_singular(below)[0] * top_singular(above)[2]).sum(-1).abs()
        for below, above in _adjacent(weights)
    ]


def product_misalignment(weights: list[torch.Tensor]) -> torch.Tensor:
    """1 - |<w / prod_k ||W_k||_F, v_1>|, of shape (*runs), one output; good to about 1e-15 absolute
    (JT18-Thm1 C5)."""
    return 1 - product_alignment(weights)


def product_alignment(weights: list[torch.Tensor]) -> torch.Tensor:
    """|<w / prod_k ||W_k||_F, v_1>|, of shape (*runs), for one output; each layer is normalised
    before it enters."""
    if weights[-1].shape[-2] != 1:
        raise ShapeMismatch(
            f"{weights[-1].shape[-2]} outputs found, needed 1: the predictor must be a vector"
        )
    w = _predictor([W / _positive(_frobenius(W), "a layer")[..., None, None] for W in weights])
    return (w * top_singular(weights[0])[2]).sum(-1).abs()


def commutator_score(weights: list[torch.Tensor]) -> torch.Tensor:
    """max_k ||[W_{k+1}^T W_{k+1}, W_k W_k^T]||_F / (product of norms), (*runs): 0 when aligned
    (R20).

    The converse holds for two layers, and where no inner layer repeats a non-zero singular value;
    it is `path_commutator_score` that vanishes exactly when the network is aligned.
    """
    scores = []
    for below, above in _adjacent(weights):
        A, B = above.mT @ above, below @ below.mT
        size = _positive(_frobenius(A) * _frobenius(B), "a layer")
        scores.append(_frobenius(A @ B - B @ A) / size)
    return torch.stack(scores).amax(0)


def path_commutator_score(weights: list[torch.Tensor]) -> torch.Tensor:
    """The same over all products P of layers below a hidden layer and Q above: max ||[Q^T Q, P
    P^T]||_F, (*runs).

    Layers W are scaled to ||W W^T||_F = 1 first. 0 exactly when aligned; L (L^2 - 1)/6 commutators.
    Derived in the book.
    """
    unit = [W / _positive(_frobenius(W @ W.mT), "a layer").sqrt()[..., None, None] for W in weights]
    below, scores = [], []
    for k, (W, _) in enumerate(_adjacent(unit)):
        below = [W @ W.mT] + [W @ F @ W.mT for F in below]
        Q = None
        for above in unit[k + 1 :]:
            Q = above if Q is None else above @ Q
            H = Q.mT @ Q
            scores += [_frobenius(H @ F - F @ H) for F in below]
    return torch.stack(scores).amax(0)


def align_score(weights: list[torch.Tensor]) -> torch.Tensor:
    """Mean over singular vectors of max |<v_{k+1,i}, u_{k,j}>|, (*runs), as in R20's code.

    1 when aligned up to order and sign. Not defined at repeated or zero singular values: see
    `commutator_score`.
    """
    return _best_matches(
        [(_thin(above)[1], _thin(below)[0]) for below, above in _adjacent(weights)]
    )


def inv_score(weights: list[torch.Tensor], start: list[torch.Tensor]) -> torch.Tensor:
    """The same mean between now and the start, over U_1 .. U_{L-1} and V_2 .. V_L, (*runs), as in
    R20's code."""
    now, then = [_thin(W) for W in weights], [_thin(W) for W in start]
    pairs = [(a[0], b[0]) for a, b in zip(then[:-1], now[:-1], strict=True)]
    return _best_matches(pairs + [(a[1], b[1]) for a, b in zip(then[1:], now[1:], strict=True)])


def _thin(W: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    U, _, Vh = torch.linalg.svd(W.detach(), full_matrices=False)
    return U, Vh.mT


def _best_matches(pairs: list[tuple[torch.Tensor, torch.Tensor]]) -> torch.Tensor:
    total, count = 0.0, 0
    for A, B in pairs:  # columns are vectors
        overlap = (A.mT @ B).abs()
        # one row for each possible match
        overlap = overlap if overlap.shape[-2] <= overlap.shape[-1] else overlap.mT
        total, count = total + overlap.amax(-1).sum(-1), count + overlap.shape[-2]
    return total / count


# --- predictor ------------------------------------------------------------------------------------


def perpendicular(w: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
    """w - <w, u> u for a unit u (d,) and w (*runs, d): where p* is read; loses what w has lost,
    ||w|| 1e-16."""
    rest = w - (w @ u)[..., None] * u
    return rest - (rest @ u)[..., None] * u  # the second pass removes what u's rounding leaves


def direction_error(w: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
    """|| w/||w|| - u || for a unit u (d,), (*runs), by the sine: no digits are lost near 0; 2 for w
    = -u."""
    size = _positive(torch.linalg.vector_norm(w, dim=-1), "w")
    sine, cosine = torch.linalg.vector_norm(perpendicular(w, u), dim=-1) / size, (w @ u) / size
    near = sine / ((1 + cosine.clamp(min=0)) / 2).sqrt()
    return torch.where(cosine >= 0, near, (2 - 2 * cosine).sqrt())


def margin(w: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
    """min_i <w, z_i> / ||w||, of shape (*runs); negative when a point is on the wrong side."""
    return (w @ z.T).amin(-1) / _positive(torch.linalg.vector_norm(w, dim=-1), "w")


def kkt_residual(w: torch.Tensor, support: torch.Tensor) -> torch.Tensor:
    """Distance of w/||w|| from the cone of the support vectors (|S|, d), (*runs): 0 at the maximum
    margin."""
    from scipy.optimize import nnls

    w = w.detach() / _positive(torch.linalg.vector_norm(w.detach(), dim=-1, keepdim=True), "w")
    rows = (support / support.abs().max()).cpu().numpy().T
    flat = w.reshape(-1, w.shape[-1]).cpu().numpy()
    return w.new_tensor([nnls(rows, row)[1] for row in flat]).reshape(w.shape[:-1])


def principal_sines(A: torch.Tensor, B: torch.Tensor) -> torch.Tensor:
    """Sines, ascending, of the principal angles from the columns of A (*runs, d, b) to those of B
    (*runs, d, a).

    Columns must be independent and A has no more of them than B; they are the singular values of (I
    - Q_B Q_B^T) Q_A.
    """
    if A.shape[-1] > B.shape[-1]:
        raise ShapeMismatch(
            f"{A.shape[-1]} columns against {B.shape[-1]} found, needed no more: swap the arguments"
        )
    QA, QB = torch.linalg.qr(A)[0], torch.linalg.qr(B)[0]
    rest = QA - QB @ (QB.mT @ QA)
    return torch.linalg.svdvals(rest).flip(-1).clamp(max=1.0)


# --- helpers --------------------------------------------------------------------------------------


def _adjacent(weights: list[torch.Tensor]):
    for k, (below, above) in enumerate(zip(weights, weights[1:], strict=False)):
        if above.shape[-1] != below.shape[-2]:
            raise ShapeMismatch(
                f"layer {k + 2} takes {above.shape[-1]} inputs, layer {k + 1} gives "
                f"{below.shape[-2]}: "
                "needed equal"
            )
        yield below, above


def _predictor(weights: list[torch.Tensor]) -> torch.Tensor:
    row = weights[-1]
    for W in reversed(weights[:-1]):
        row = row @ W
    return row[..., 0, :]


def _sine_squared(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """1 - <a, b>^2 of unit vectors, from the part of a orthogonal to b."""
    return (a - (a * b).sum(-1, keepdim=True) * b).square().sum(-1)


def _frobenius(W: torch.Tensor) -> torch.Tensor:
    return torch.linalg.matrix_norm(W)


def _positive(size: torch.Tensor, what: str) -> torch.Tensor:
    if not (size > 0).all():
        found = "0" if (size == 0).any() else "not a number"
        raise BadParameter(
            f"the norm of {what} is {found}, needed above 0: it has no direction, choose another "
            "start"
        )
    return size
