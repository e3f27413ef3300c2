"""Models with compiled margins, packed for the kernels, and what can be asked of any of them.

Which function stands behind a call is settled by the type of the packed description when the call
is compiled: what a model does not use is not compiled. All functions are @njit functions for
callers, whatever is packed.
"""

from __future__ import annotations

from numba.extending import overload

from dlnlib._kernels import layers, products
from dlnlib._kernels.jit import INNER
from dlnlib.networks.feed_forward import FeedForward
from dlnlib.networks.model import Circular, Diagonal, Linear

__all__ = ["packed", "look", "pull", "push", "gram"]

_MAKERS = {
    FeedForward: layers.layers,
    Linear: layers.one_layer,
    Diagonal: products.diagonal,
    Circular: products.circular,
}


def packed(model):
    """The packed description of a model; None where it has none: then its NumPy side has to do."""
    make = _MAKERS.get(type(model))
    return make(model) if make else None


def look(net, theta, on):
    """Margins `q` (n,) and pre-activations `pre` (m,) at theta, and what the functions below need
    besides."""


def pull(net, seen, p):
    """J^T p, (P,), for p (n,)."""


def push(net, seen, v):
    """J v, (n,), for v (P,)."""


def gram(net, seen, points):
    """J J^T for the margins of these points, (r, r)."""


def _behind(net, name):
    """The function of that name for what is packed, as Numba wants it: not compiled yet."""
    return getattr(layers if net.instance_class is layers.Layers else products, name).py_func


@overload(look, jit_options=INNER)
def _look(net, theta, on):
    return _behind(net, "look")


@overload(pull, jit_options=INNER)
def _pull(net, seen, p):
    return _behind(net, "pull")


@overload(push, jit_options=INNER)
def _push(net, seen, v):
    return _behind(net, "push")


@overload(gram, jit_options=INNER)
def _gram(net, seen, points):
    return _behind(net, "gram")
