"""What is measured by running the model: margins of data, top eigenvalues of the Hessian and of the
tangent kernel.

The model is called with parameters and buffers in float64 and as in evaluation: no dropout, no
statistics of a batch, and nothing of it is changed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call

from dlnlib.errors import BadData, ShapeMismatch

__all__ = [
    "evaluating",
    "trained",
    "flat",
    "as_function",
    "checked_data",
    "margins_of",
    "hessian_top",
    "kernel_top",
]

ACCURACY = 1e-4  # relative, of an eigenvalue


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """The model in evaluation mode; afterwards each module is in the mode it was in."""
    modes = [(module, module.training) for module in model.modules()]
    for module, _ in modes:
        module.training = False
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


def trained(model: nn.Module) -> dict[str, Tensor]:
    """The parameters that training moves, detached, in float64."""
    return {k: p.detach().double() for k, p in model.named_parameters() if p.requires_grad}


def as_function(model: nn.Module, x: Tensor) -> Callable[[Tensor], Tensor]:
    """theta (P,), all parameters that training moves in a row -> the model's output at x."""
    shapes = {k: p.shape for k, p in trained(model).items()}
    fixed = {k: p.detach().double() for k, p in model.named_parameters() if not p.requires_grad}
    fixed |= {k: b.double() if b.is_floating_point() else b for k, b in model.named_buffers()}
    x = x.double() if x.is_floating_point() else x

    def outputs(theta: Tensor) -> Tensor:
        parts = theta.split([math.prod(s) for s in shapes.values()])
        named = {k: t.view(s) for (k, s), t in zip(shapes.items(), parts, strict=True)}
        with evaluating(model):
            return functional_call(model, {**fixed, **named}, (x,))

    return outputs


def flat(params: dict[str, Tensor]) -> Tensor:
    """theta (P,)."""
    return torch.cat([p.reshape(-1) for p in params.values()])


# --- margins --------------------------------------------------------------------------------------


def checked_data(data) -> tuple[Tensor, Tensor]:
    """x (n, ...) and y (n, ...), as tensors; raises BadData and ShapeMismatch."""
    if not (isinstance(data, tuple | list) and len(data) == 2):
        raise BadData("data is no pair, needed data=(x, y): inputs and labels of the training set")
    x, y = (torch.as_tensor(part) for part in data)
    if x.ndim < 1 or len(x) == 0 or len(x) != len(y):
        raise ShapeMismatch(
            f"x has shape {tuple(x.shape)} and y {tuple(y.shape)}, needed one label for each of at "
            "least one row"
        )
    return x, y


def margins_of(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """y_i f(x_i) for one output and labels -1, 1 or 0, 1; f_y - max_{k != y} f_k for several and
    classes 0, 1, ...: (n,), in float64. BadData for other labels."""
    with torch.no_grad(), evaluating(model):
        scores = model(x)
    if not isinstance(scores, Tensor) or len(scores) != len(x):
        raise BadData("the output is no tensor of a row a sample: margins need one")
    scores, labels = scores.double().reshape(len(x), -1), y.to(scores.device)
    found = labels.unique().tolist()
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1:
        raise BadData(f"labels have shape {tuple(y.shape)}, needed one a sample: give classes")
    if scores.shape[1] == 1:
        if not (set(found) <= {-1, 1} or set(found) <= {0, 1}):
            raise BadData(f"labels are {found[:4]}, needed -1 and 1, or 0 and 1, for one output")
        signs = torch.where(labels > 0, 1.0, -1.0).double()
        return signs * scores[:, 0]
    classes = labels.long()
    if bool((classes != labels).any()) or not 0 <= min(found) <= max(found) < scores.shape[1]:
        raise BadData(f"labels are {found[:4]}, needed classes 0 to {scores.shape[1] - 1}")
    own = scores.gather(1, classes[:, None])[:, 0]
    return own - scores.scatter(1, classes[:, None], -math.inf).amax(1)


# --- eigenvalues ----------------------------------------------------------------------------------


def hessian_top(model: nn.Module, loss: Callable, x: Tensor, y: Tensor) -> float:
    """Largest eigenvalue of the Hessian of loss(model(x), y) in the parameters, to 1e-4, by Lanczos
    with products; some dozens of gradients twice over."""
    theta = flat(trained(model)).requires_grad_()
    y = y.double() if y.is_floating_point() else y
    value = loss(as_function(model, x)(theta), y)
    (slope,) = torch.autograd.grad(value, theta, create_graph=True)
    return _top(lambda v: torch.autograd.grad(slope, theta, v, retain_graph=True)[0], theta)


def kernel_top(model: nn.Module, x: Tensor) -> float:
    """Largest eigenvalue of the tangent kernel J J^T (n k, n k) at x, J the Jacobian of all k
    outputs, to 1e-4; J is never formed."""
    theta = flat(trained(model)).requires_grad_()
    out = as_function(model, x)(theta).reshape(-1)
    v = torch.zeros_like(out, requires_grad=True)
    (back,) = torch.autograd.grad(out, theta, v, create_graph=True)  # J^T v, linear in v

    def product(u: Tensor) -> Tensor:
        (forth,) = torch.autograd.grad(back, v, u, retain_graph=True)
        return torch.autograd.grad(out, theta, forth, retain_graph=True)[0]

    return _top(product, theta)


def _top(product: Callable[[Tensor], Tensor], like: Tensor) -> float:
    """Largest eigenvalue of a symmetric map given by its product with a vector."""
    from scipy.sparse.linalg import LinearOperator, eigsh

    def matvec(v: np.ndarray) -> np.ndarray:
        return product(torch.as_tensor(v.reshape(-1)).to(like)).detach().cpu().numpy()

    size = len(like)
    if size < 3:  # too small for Lanczos
        columns = [matvec(e) for e in np.eye(size)]
        return float(np.linalg.eigvalsh(np.stack(columns))[-1])
    operator = LinearOperator((size, size), matvec=matvec, dtype=np.float64)
    first = np.random.default_rng(0).standard_normal(size)
    return float(eigsh(operator, k=1, which="LA", tol=ACCURACY, v0=first)[0][0])
