r"""How many independent quantities all gradient flows of a network conserve, found numerically.

On given inputs every gradient flow, of any loss, moves along the fields X_a = grad <a, f(.)>, with
a weight in a for each output of each input. What all of them conserve is constant along their
brackets as well, [X, Y] = DY X - DX Y, and near a generic point there are P minus the rank of the
closure of the fields under brackets of them (Frobenius, Nagano). Counted at one point, from random
a, until a level of brackets adds nothing. Linear layers need brackets: their fields alone leave d^2
directions for d hidden units, while the balance is d(d + 1)/2 numbers. Source: Marcotte, Gribonval
and Peyré (2023).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.func import vjp, vmap

from dlnlib._checks import require
from dlnlib.errors import NonFinite

__all__ = ["Conserved", "count_conserved", "across_conserved"]

ZERO = 1e-9  # relative: a direction below it is rounding of the others
CLEAR = 1e2  # the factor that must lie between the last direction counted and the next
LEVELS = 6  # nested brackets at most
BATCH = 32  # brackets drawn at once, at first

Field = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Conserved:
    """Counts at one point: `parameters` P, `span` of the fields, `closure` with brackets, `levels`
    of them that were needed, and `number` = P - closure.

    `clear`: the directions counted and those left out differ by a factor of 100 at least. `basis`
    (P, closure): the directions in which some gradient flow can move the parameters.
    """

    parameters: int
    span: int
    closure: int
    levels: int
    clear: bool
    basis: Tensor = field(repr=False)

    @property
    def number(self) -> int:
        return self.parameters - self.closure


def count_conserved(outputs: Callable[[Tensor], Tensor], theta: Tensor, seed: int = 0) -> Conserved:
    """Independent conserved quantities of all gradient flows through theta (P,), float64, with
    `outputs(theta)` any tensor: all outputs on all inputs.

    What these inputs do not see counts as conserved: a pixel that is always 0, a unit that is never
    on. Raises BadParameter unless theta is a vector, NonFinite. Cost: QRs of up
    to P x P, and a product with Hessians a bracket; seconds for P = 2,000.
    """
    require(theta.ndim == 1 and len(theta) > 0, "theta.shape", tuple(theta.shape), "one dimension")
    theta = theta.detach().to(torch.float64)
    generator = torch.Generator().manual_seed(seed)

    def f(t: Tensor) -> Tensor:
        return outputs(t).reshape(-1)

    basis, clear = _widened(f, theta, theta.new_zeros(len(theta), 0), 0, generator)
    span, level = basis.shape[1], 0
    while basis.shape[1] < len(theta) and level < LEVELS:
        wider, sharp = _widened(f, theta, basis, level + 1, generator)
        if wider.shape[1] == basis.shape[1]:
            break
        basis, clear, level = wider, clear and sharp, level + 1
    return Conserved(len(theta), span, basis.shape[1], level, clear, basis)


def across_conserved(step: Tensor, found: Conserved) -> float:
    """|| step - its projection on the directions of gradient flows || / || step ||, for a step
    (P,) from the point that was counted at.

    Of the order of rounding for a step of gradient descent; not for weight decay, momentum or a
    step that is rescaled by coordinates. NaN for no step.
    """
    step = step.detach().to(found.basis)
    size = step.norm()
    if size == 0:
        return float("nan")
    rest = step - found.basis @ (found.basis.T @ step)
    rest = rest - found.basis @ (found.basis.T @ rest)
    return (rest.norm() / size).item()


# --- the closure ----------------------------------------------------------------------------------


def _widened(f, theta, basis, level, generator) -> tuple[Tensor, bool]:
    """The basis with fields (level 0) or brackets of level + 1 of them, drawn at random until a
    batch adds less than its size."""
    outputs, batch, clear = f(theta).shape, BATCH, True
    while basis.shape[1] < len(theta):
        weights = torch.randn(batch, level + 1, *outputs, generator=generator, dtype=theta.dtype)
        drawn = vmap(lambda a: _nested(f, a)(theta), chunk_size=64)(weights)
        if not bool(drawn.isfinite().all()):
            raise NonFinite("the outputs have a gradient that is not finite, needed finite ones")
        new, sharp = _independent(drawn, basis)
        basis, clear = torch.cat([basis, new], 1), clear and sharp
        if new.shape[1] < batch:
            break
        batch *= 2
    return basis, clear


def _nested(f, weights: Tensor) -> Field:
    """[X_1, [X_2, ... X_n]] as a field; brackets of this form span all others."""

    def simple(a: Tensor) -> Field:
        return lambda t: vjp(f, t)[1](a)[0]

    inner = simple(weights[-1])
    for a in reversed(weights[:-1].unbind()):
        inner = _bracket(simple(a), inner)
    return inner


def _bracket(X: Field, Y: Field) -> Field:
    return lambda t: _along(Y, t, X(t)) - _along(X, t, Y(t))


def _along(field: Field, t: Tensor, v: Tensor) -> Tensor:
    """D field(t) v, by the slope of u -> D field(t)^T u: torch's own jvp is slow to load."""
    value, back = vjp(field, t)
    return vjp(lambda u: back(u)[0], torch.zeros_like(value))[1](v)[0]


def _independent(vectors: Tensor, basis: Tensor) -> tuple[Tensor, bool]:
    """An orthonormal basis (P, r) of what random mixtures (n, P) add to `basis`, and whether r is
    clear.

    Of random mixtures each is independent of those before until nothing is left, so that the
    diagonal of a QR without pivots tells the rank.
    """
    size = vectors.norm(dim=1, keepdim=True)
    rest = vectors / size.clamp(min=torch.finfo(size.dtype).tiny)
    for _ in range(2):  # the second pass removes what rounding leaves
        rest = rest - (rest @ basis) @ basis.T
    Q, R = torch.linalg.qr(rest.T)
    sizes = R.diagonal().abs()
    small = (sizes <= ZERO).nonzero()
    rank = int(small[0]) if len(small) else len(sizes)
    after = sizes[rank].item() if rank < len(sizes) else 0.0
    clear = rank == 0 or after * CLEAR < sizes[:rank].min().item()
    return Q[:, :rank], clear
