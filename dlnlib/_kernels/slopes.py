"""The losses of `losses` over all data of one run, compiled: risk and slopes, in loops that become
vectors."""

from __future__ import annotations

import math

from numba import njit

from dlnlib._kernels.jit import JIT
from dlnlib.errors import BadParameter
from dlnlib.losses.margin import exponential, logistic, polynomial, squared

__all__ = [
    "number_of",
    "EXPONENTIAL",
    "LOGISTIC",
    "POLYNOMIAL",
    "SQUARED",
    "BLOCK",
    "over_data",
    "pointwise",
    "add_rows",
]

EXPONENTIAL, LOGISTIC, POLYNOMIAL, SQUARED = range(4)
BLOCK = 512  # terms of a product of numbers up to 2 that float64 surely holds


def number_of(loss) -> int:
    """Which of these four it is; `BadParameter` for any other loss, whatever its name."""
    known = (exponential, logistic, polynomial, squared)
    if loss not in known:
        raise BadParameter(
            f"loss is {loss!r}, compiled are {', '.join(one.name for one in known)}: take one of "
            "these, or dynamics.flow_in_time"
        )
    return known.index(loss)


@njit(**JIT)
def over_data(zt, w, loss, q, room, bits):
    """Risk, mean of |l'| and <w, q> at w; q = -grad R(w), with zt (d, n) = z^T.

    room (4 or more, n) is overwritten; bits is its row 3 as integers.
    """
    d, n = zt.shape
    m, s, v, e = room[0], room[1], room[2], room[3]
    for i in range(n):
        m[i] = 0.0
    for j in range(0, d - 3, 4):
        add_rows(m, w[j], zt[j], w[j + 1], zt[j + 1], w[j + 2], zt[j + 2], w[j + 3], zt[j + 3])
    for j in range(d - d % 4, d):
        row, weight = zt[j], w[j]
        for i in range(n):
            m[i] += weight * row[i]
    pointwise(loss, m, s, v, e, bits)
    total = 0.0
    for i in range(n):
        total += v[i]
    if loss == LOGISTIC:
        for first in range(0, n, BLOCK):
            total += math.log1p(_growth(e[first : first + BLOCK]))
    size, inward, weight = 0.0, 0.0, 1 / n
    for i in range(n):
        slope = weight * s[i]
        size += abs(slope)
        inward += slope * m[i]
        s[i] = slope
    for j in range(d):
        row, product = zt[j], 0.0
        for i in range(n):
            product += s[i] * row[i]
        q[j] = product
    return total / n, size, inward


@njit(**JIT)
def add_rows(total, a, x, b, y, c, z, d, u):
    """total += a x + b y + c z + d u: read and written once for four rows."""
    for i in range(len(total)):
        total[i] += a * x[i] + b * y[i] + c * z[i] + d * u[i]


@njit(**JIT)
def _growth(t):
    """prod_i (1 + t_i) - 1 for t_i >= 0, which are overwritten: all terms positive, so that no
    digit is lost."""
    length = len(t)
    while length > 1:
        half = (length + 1) // 2
        low, high = t[:half], t[half:length]
        for i in range(len(high)):
            low[i] += high[i] + low[i] * high[i]
        length = half
    return t[0]


@njit(**JIT)
def pointwise(loss, m, s, v, e, bits):
    """s = -l'(m), and l(m) = v, infinite where it overflows; but l(m) = v + log(1 + e) for the
    logistic loss.

    bits is e as integers.
    """
    if loss == POLYNOMIAL:
        for i in range(len(m)):
            margin = m[i]
            tail = 1 / (1 + (margin if margin > 0 else 0.0))
            s[i] = tail * tail
            v[i] = tail if margin > 0 else 1 - margin
    elif loss == SQUARED:
        for i in range(len(m)):
            s[i] = 1 - m[i]
            v[i] = s[i] * s[i] / 2
    else:
        for i in range(len(m)):  # max and min of Numba mind NaN, and are not vectorised
            size = abs(m[i]) if loss == LOGISTIC else m[i]
            size = size if size < 708 else 708.0
            s[i] = -(size if size > -708 else -708.0)
        _exp(s, e, bits)
        if loss == LOGISTIC:
            for i in range(len(m)):
                # read before any choice, so that the choices become masks
                margin, tail = m[i], e[i]
                tail = tail if margin < 708 else 0.0
                s[i] = (tail if margin > 0 else 1.0) / (1 + tail)
                v[i] = 0.0 if margin > 0 else -margin
                e[i] = tail
        else:
            for i in range(len(m)):
                margin, tail = m[i], e[i]
                s[i] = tail if margin < 708 else 0.0
                v[i] = s[i] if margin >= -708 else math.inf


# said outright: Numba hands down a caller's options, which undo the rounding
@njit(**JIT | {"fastmath": {"contract"}})
def _exp(x, y, bits):
    """y = exp(x), |x| <= 708, to an ulp or two; x is overwritten. Loops that vectorise, which calls
    to exp do not.

    bits is y as integers, handed in, as Numba takes its time to compile `view`.
    """
    for i in range(len(x)):
        # 1.5 * 2^52: low bits now hold k = round(x / ln 2)
        shifted = x[i] * 1.4426950408889634 + 6755399441055744.0
        k = shifted - 6755399441055744.0
        r = (x[i] - k * 6.93147180369123816490e-01) - k * 1.90821492927058770002e-10
        p = 1 / 6227020800.0
        for c in (
            479001600.0,
            39916800.0,
            3628800.0,
            362880.0,
            40320.0,
            5040.0,
            720.0,
            120.0,
            24.0,
            6.0,
            2.0,
        ):
            p = p * r + 1 / c
        y[i] = shifted
        x[i] = 1 + ((p * r) * r + r)
    for i in range(len(x)):
        bits[i] = (bits[i] + 1023) << 52  # 2^k
    for i in range(len(x)):
        y[i] *= x[i]
