"""The same steps in JAX, compiled whole by jit(lax.scan): with its own gradient, and with the
closed form."""

from __future__ import annotations

import functools

import numpy as np
import torch

try:
    import jax
    import jax.numpy as jnp
except ImportError:
    jax = None

__all__ = ["PEERS"]


def _risk(layers, z):
    h = z.T
    for W in layers:
        h = W @ h
    return jax.nn.softplus(-h).mean()


def _gradient(layers, z):
    """Closed form for one network: two chains of matrix-vector products, an outer product a
    layer."""
    rows = [jnp.ones(1)]
    for W in reversed(layers):
        rows.append(rows[-1] @ W)
    column = -(jax.nn.sigmoid(-(z @ rows.pop())) / len(z)) @ z
    found = []
    for W, row in zip(layers, reversed(rows), strict=True):
        found.append(jnp.outer(row, column))
        column = W @ column
    return found


@functools.cache
def _compiled(gradient, eta, steps):
    def run(layers, z):
        def step(layers, _):
            gradients = jax.vmap(gradient, (0, None))(layers, z)
            return [W - eta * g for W, g in zip(layers, gradients, strict=True)], None

        return jax.lax.scan(step, layers, None, length=steps)[0]

    return jax.jit(run)


def _run(gradient, z, weights, eta, steps):
    with jax.enable_x64(True):
        layers = _compiled(gradient, eta, steps)(
            [jnp.asarray(W.numpy()) for W in weights], jnp.asarray(z.numpy())
        )
        return [torch.from_numpy(np.array(W)) for W in jax.block_until_ready(layers)]


def _peer(gradient):
    return functools.partial(_run, gradient) if jax else None


PEERS = {
    "JAX scan(vmap(grad))": _peer(jax.grad(_risk) if jax else None),
    "JAX scan of the closed form": _peer(_gradient),
}
