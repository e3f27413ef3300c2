"""Layers that are matrices: those of the modules of a network, the heads of attention included."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from torch import Tensor, nn

__all__ = ["Layer", "shown", "owners", "unlinked", "weight_of", "bias_of"]

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
MATRICES = (nn.Linear, *CONVOLUTIONS)


@dataclass(frozen=True)
class Layer:
    """A layer with a weight W (out, in, *kernel): of a module, or one head of an attention.

    `kind`: linear, convolution, value or output; `head` (index, number) for the latter two. `notes`
    are what keeps theorems away: shared, frozen, parametrised, grouped.
    """

    name: str
    module: str
    kind: str
    shape: tuple[int, ...]
    bias: bool
    head: tuple[int, int] | None = None
    notes: tuple[str, ...] = ()


def owners(model: nn.Module) -> dict[str, nn.Module]:
    """Modules that hold matrices, by name; one that stands under two names has its first."""
    inside = {
        name
        for name, module in model.named_modules()
        for above, attention in model.named_modules()
        if isinstance(attention, nn.MultiheadAttention) and name == f"{above}.out_proj".strip(".")
    }
    kinds = (*MATRICES, nn.MultiheadAttention)
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, kinds) and name not in inside
    }


def unlinked(model: nn.Module, calls: Counter | None = None) -> tuple[Layer, ...]:
    """All layers, heads of attention included; `calls` counts uses of a module in one pass."""
    modules, seen = owners(model), calls or Counter()
    users = Counter(id(W) for module in modules.values() for W in _parameters(module))
    found = []
    for name, module in modules.items():
        notes = _notes(module, seen[name], users)
        if isinstance(module, nn.MultiheadAttention):
            found += _heads(name, module, notes)
            continue
        kind = "convolution" if isinstance(module, CONVOLUTIONS) else "linear"
        shape, bias = tuple(module.weight.shape), module.bias is not None
        found.append(Layer(shown(name), name, kind, shape, bias, None, notes))
    return tuple(found)


def _parameters(module: nn.Module) -> list[Tensor]:
    """The weights of a module that are parameters of its own, biases left out."""
    names = ("weight", "in_proj_weight", "v_proj_weight")
    own = [module._parameters.get(name) for name in names]
    return [W for W in own if W is not None]


def _notes(module: nn.Module, calls: int, users: Counter) -> tuple[str, ...]:
    own, notes = _parameters(module), []
    if not own:
        notes.append("parametrised")
    if calls > 1 or any(users[id(W)] > 1 for W in own):
        notes.append("shared")
    trained = [p.requires_grad for p in module.parameters()]
    if not all(trained):
        notes.append("frozen" if not any(trained) else "partly frozen")
    if getattr(module, "groups", 1) > 1:
        notes.append("grouped")
    return tuple(notes)


def _heads(name: str, module: nn.MultiheadAttention, notes: tuple[str, ...]) -> list[Layer]:
    heads, width = module.num_heads, module.embed_dim // module.num_heads
    inputs, found = module.vdim, []
    for h in range(heads):
        value, output = (f"{shown(name)}.{part}[{h}]" for part in ("value", "output"))
        bias = module.in_proj_bias is not None
        found.append(Layer(value, name, "value", (width, inputs), bias, (h, heads), notes))
        shape = (module.embed_dim, width)
        found.append(Layer(output, name, "output", shape, False, (h, heads), notes))
    return found


def weight_of(model: nn.Module, layer: Layer) -> Tensor:
    """W (out, in, *kernel) as it is now, detached, in its own type and place."""
    module = model.get_submodule(layer.module)
    if layer.head is None:
        return module.weight.detach()
    part = _part(module, layer)
    if layer.kind == "output":
        return module.out_proj.weight.detach()[:, part]
    if module.v_proj_weight is not None:
        return module.v_proj_weight.detach()[part]
    return module.in_proj_weight.detach()[2 * module.embed_dim :][part]


def bias_of(model: nn.Module, layer: Layer) -> Tensor | None:
    """b (out,) as it is now, or None."""
    module = model.get_submodule(layer.module)
    if not layer.bias:
        return None
    if layer.kind == "value":
        return module.in_proj_bias.detach()[2 * module.embed_dim :][_part(module, layer)]
    return module.bias.detach()


def _part(module: nn.MultiheadAttention, layer: Layer) -> slice:
    width = module.embed_dim // module.num_heads
    return slice(layer.head[0] * width, (layer.head[0] + 1) * width)


def shown(module: str) -> str:
    """The name of a module, as it is said: the model itself has none."""
    return module or "model"
