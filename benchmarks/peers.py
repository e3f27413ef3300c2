"""What else computes the same steps: each peer is a function (z, weights, eta, steps) -> weights,
logistic loss."""

from __future__ import annotations

import numpy as np
import torch
from torch.nn.functional import cross_entropy, softplus

__all__ = ["PEERS", "vmap_grad_outputs"]


def autograd_loop(z, weights, eta, steps):
    """One run after the other, as a tutorial would write it."""
    done = []
    for r in range(len(weights[0])):
        layers = [W[r].clone().requires_grad_() for W in weights]
        for _ in range(steps):
            gradients = torch.autograd.grad(_risk(layers, z), layers)
            with torch.no_grad():
                for W, g in zip(layers, gradients, strict=True):
                    W -= eta * g
        done.append([W.detach() for W in layers])
    return [torch.stack(column) for column in zip(*done, strict=True)]


def vmap_grad(z, weights, eta, steps):
    gradient = torch.func.vmap(torch.func.grad(_risk), in_dims=(0, None))
    for _ in range(steps):
        weights = [W - eta * g for W, g in zip(weights, gradient(weights, z), strict=True)]
    return weights


def _risk(layers, z):
    h = z.T
    for W in layers:
        h = W @ h
    return softplus(-h).mean()


def vmap_grad_outputs(x, classes, weights, eta, steps):
    """Cross-entropy of several outputs; x (d, n) one sample a column."""

    def risk(layers):
        h = x
        for W in layers:
            h = W @ h
        return cross_entropy(h.T, classes)

    gradient = torch.func.vmap(torch.func.grad(risk))
    for _ in range(steps):
        weights = [W - eta * g for W, g in zip(weights, gradient(weights), strict=True)]
    return weights


def torch_closed_form(z, weights, eta, steps):
    """Two chains of matrix-vector products and a rank-one update a layer."""
    weights = [W.clone() for W in weights]
    for _ in range(steps):
        rows = [weights[-1].new_ones(len(weights[0]), 1, 1)]
        for W in reversed(weights):
            rows.append(torch.bmm(rows[-1], W))
        w = rows.pop()
        column = (torch.sigmoid(-(w[:, 0] @ z.T)) / len(z)) @ z
        column = column[:, None]
        for W, row in zip(weights, reversed(rows), strict=True):
            above = torch.bmm(column, W.transpose(1, 2))
            W.baddbmm_(row.transpose(1, 2), column, alpha=eta)
            column = above
    return weights


def numpy_closed_form(z, weights, eta, steps):
    z, weights = z.numpy(), [W.numpy().copy() for W in weights]
    for _ in range(steps):
        rows = [np.ones((len(weights[0]), 1, 1))]
        for W in reversed(weights):
            rows.append(rows[-1] @ W)
        w = rows.pop()
        column = ((1 / (1 + np.exp(w[:, 0] @ z.T)) / len(z)) @ z)[:, None]
        for W, row in zip(weights, reversed(rows), strict=True):
            above = column @ W.transpose(0, 2, 1)
            W += eta * row.transpose(0, 2, 1) * column
            column = above
    return [torch.from_numpy(W) for W in weights]


PEERS = {
    "autograd, run after run": autograd_loop,
    "torch.func.vmap(grad)": vmap_grad,
    "torch closed form, eager": torch_closed_form,
    "NumPy closed form": numpy_closed_form,
}
