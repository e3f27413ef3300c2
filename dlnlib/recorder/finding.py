"""Which layers of a network follow one another with nothing, or a rectifier, between.

One forward pass, with copies of parameters and buffers and the random state put back, is watched
through the graph that torch draws of it: layer B follows layer A where the input of B is the output
of A itself, and nothing else reads that output. So a residual connection, a norm, a dropout or a
reshape between two layers keeps them apart, whether it is a module or a function.
"""

from __future__ import annotations

import re
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.func import functional_call

from dlnlib.recorder.layers import Layer, owners, shown, unlinked

__all__ = ["Pair", "Found", "find"]

DROPOUTS = nn.modules.dropout._DropoutNd
RECTIFIERS = ("ReluBackward0", "LeakyReluBackward0")
FARTHEST = 400  # nodes of the graph looked at when naming what lies between two layers


@dataclass(frozen=True)
class Pair:
    """Two layers, the second on top of the first; `between` is "" or "relu"."""

    below: str
    above: str
    between: str = ""

    @property
    def name(self) -> str:
        return f"{self.below} > {self.above}"


@dataclass(frozen=True)
class Found:
    """Layers, pairs, maximal runs of linear pairs, and why neighbours are no pair.

    `ends`: layers whose output is the model's. `whole`: one run from the model's input to its
    output, that holds all its parameters.
    """

    layers: tuple[Layer, ...]
    pairs: tuple[Pair, ...] = ()
    runs: tuple[tuple[str, ...], ...] = ()
    apart: tuple[str, ...] = ()
    ends: tuple[str, ...] = ()
    whole: bool = False
    by_name: dict[str, Layer] = field(init=False, repr=False, compare=False)

    def __post_init__(self):
        object.__setattr__(self, "by_name", {layer.name: layer for layer in self.layers})


# --- which follow one another ---------------------------------------------------------------------


@dataclass(frozen=True)
class _Call:
    """One use of a module: the nodes that made what it was given, and what it gave."""

    name: str
    given: object
    made: object
    first: bool  # it reads the model's own input


def find(model: nn.Module, args: tuple, kwargs: dict) -> Found:
    """Layers, pairs and runs of the model, from one more forward pass on a batch it was given."""
    calls, outputs = _watch(model, args, kwargs)
    uses, heads = _uses(outputs), {id(node) for node in outputs}
    layers = unlinked(model, Counter(call.name for call in calls))
    kinds = {layer.module: layer for layer in layers}
    made = {id(call.made): call for call in calls}
    pairs, apart = _heads_as_pairs(layers), []
    for call in calls:
        below, between = _link(call, made, uses)
        pair = below and _fits(kinds[below.name], kinds[call.name])
        if pair:
            pairs.append(Pair(shown(below.name), shown(call.name), between))
        elif call.given is not None:
            apart += _why(call, made, uses, kinds)
    pairs = list(dict.fromkeys(pairs))
    runs = _runs([pair for pair in pairs if not pair.between])
    if not runs and len(calls) == 1:  # one layer is a run of its own
        runs = [(shown(calls[0].name),)]
    ends = tuple(dict.fromkeys(shown(call.name) for call in calls if id(call.made) in heads))
    first = {shown(call.name) for call in calls if call.first}
    whole = len(runs) == len(outputs) == 1 and runs[0][0] in first and runs[0][-1] in ends
    modules = {layer.name: layer.module for layer in layers}
    whole = whole and _holds_all(model, {modules[name] for name in runs[0]})
    return Found(layers, tuple(pairs), tuple(runs), tuple(dict.fromkeys(apart)), ends, whole)


def _watch(model: nn.Module, args: tuple, kwargs: dict) -> tuple[list[_Call], list]:
    calls, modules, given = [], owners(model), list(_tensors((args, kwargs)))

    def seen(name):
        def hook(module, inputs, named, output):
            x = next(_tensors((inputs, named)))
            first = any(x.data_ptr() == t.data_ptr() and x.numel() == t.numel() for t in given)
            calls.append(_Call(name, x.grad_fn, next(_tensors(output)).grad_fn, first))

        return hook

    handles = [
        module.register_forward_hook(seen(name), with_kwargs=True)
        for name, module in modules.items()
    ]
    for module in model.modules():
        if isinstance(module, DROPOUTS) and module.p > 0:  # when not training, too
            handles.append(module.register_forward_hook(lambda m, i, out: out * 1.0))
    devices = sorted({p.device.index for p in model.parameters() if p.is_cuda})
    try:
        with torch.inference_mode(False), torch.enable_grad(), torch.random.fork_rng(devices):
            output = functional_call(model, _copies(model), *_unbound(args, kwargs))
    finally:
        for handle in handles:
            handle.remove()
    return calls, [t.grad_fn for t in _tensors(output) if t.grad_fn is not None]


def _copies(model: nn.Module) -> dict[str, Tensor]:
    """Parameters, all of them with a gradient, and buffers."""
    params = {k: p.detach().clone() for k, p in model.named_parameters()}
    for p in params.values():
        p.requires_grad_(p.is_floating_point())
    return params | {k: b.detach().clone() for k, b in model.named_buffers()}


def _unbound(args: tuple, kwargs: dict) -> tuple[tuple, dict]:
    """Arguments that the graph of the user's own pass does not know."""

    def plain(value):
        return value.detach() if isinstance(value, Tensor) else value

    return tuple(map(plain, args)), {k: plain(v) for k, v in kwargs.items()}


def _tensors(value) -> Iterator[Tensor]:
    """All tensors inside tuples, lists, dictionaries and plain records."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _tensors(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _tensors(item)
    elif hasattr(value, "__dict__") and not isinstance(value, type | nn.Module):
        yield from _tensors(vars(value))


def _uses(outputs: list) -> Counter:
    """How often the result of each node is read, the model's output counting as a reader."""
    uses, waiting, kept = Counter(id(node) for node in outputs), list(outputs), {}
    while waiting:
        node = waiting.pop()
        if id(node) in kept:
            continue
        kept[id(node)] = node  # alive, so that its id is its own
        for below, _ in node.next_functions:
            if below is not None:
                uses[id(below)] += 1
                waiting.append(below)
    return uses


def _link(call: _Call, made: dict, uses: Counter) -> tuple[_Call | None, str]:
    """The call right below this one and what is between, or None."""
    node, between = call.given, ""
    if node is not None and type(node).__name__ in RECTIFIERS and uses[id(node)] == 1:
        node, between = node.next_functions[0][0], "relu"
    below = made.get(id(node))
    return (below, between) if below and uses[id(node)] == 1 else (None, "")


def _fits(below: Layer, above: Layer) -> bool:
    """Both matrices on the same axis of what they read, with nothing that is no matrix."""
    plain = "grouped" not in below.notes + above.notes and below.head is above.head is None
    same = below.kind == above.kind and len(below.shape) == len(above.shape)
    return plain and same and below.shape[0] == above.shape[1]


def _heads_as_pairs(layers: tuple[Layer, ...]) -> list[Pair]:
    """Value and output of each head: attention mixes places, the two matrices mix channels."""
    values = [layer.name for layer in layers if layer.kind == "value"]
    return [Pair(name, name.replace(".value[", ".output[")) for name in values]


def _runs(pairs: list[Pair]) -> list[tuple[str, ...]]:
    """Maximal chains; a shared layer stands in one as often as it is used in a row."""
    above = {pair.below: pair.above for pair in pairs}
    starts = [pair.below for pair in pairs if pair.below not in set(above.values())]
    runs = []
    for name in dict.fromkeys([*starts, *above]):
        if any(name in run for run in runs):
            continue
        run = [name]
        while run[-1] in above and above[run[-1]] not in run:
            run.append(above[run[-1]])
        if run[-1] in above:  # a layer after itself
            run.append(above[run[-1]])
        runs.append(tuple(run))
    return runs


def _holds_all(model: nn.Module, names: set[str]) -> bool:
    held = {id(p) for name in names for p in model.get_submodule(name).parameters()}
    return held == {id(p) for p in model.parameters()}


# --- why two layers are no pair -------------------------------------------------------------------


def _why(call: _Call, made: dict, uses: Counter, kinds: dict) -> list[str]:
    """One line for the nearest layer below this one: what lies between, or who else reads."""
    below, path = _nearest(call.given, made)
    if below is None:
        return []
    names = f"{shown(below.name)} and {shown(call.name)}"
    if path and "add" in path:
        return [f"{names}: a residual connection between"]
    if path:
        return [f"{names}: {', '.join(path)} between"]
    if uses[id(below.made)] > 1:
        return [f"{names}: the output of {shown(below.name)} is read {uses[id(below.made)]} times"]
    a, b = kinds[below.name], kinds[call.name]
    if "grouped" in a.notes + b.notes:
        return [f"{names}: a grouped convolution, whose matrix is in blocks"]
    return [f"{names}: a {a.kind} below a {b.kind}, on different axes"]


def _nearest(node, made: dict) -> tuple[_Call | None, list[str]]:
    """The nearest layer below a node, and the operations on the way down to it."""
    waiting, known = deque([(node, [])]), set()
    while waiting and len(known) < FARTHEST:
        here, path = waiting.popleft()
        if here is None or id(here) in known:
            continue
        known.add(id(here))
        if id(here) in made:
            return made[id(here)], list(dict.fromkeys(reversed(path)))
        waiting += [(below, [*path, _word(here)]) for below, _ in here.next_functions]
    return None, []


def _word(node) -> str:
    """ "NativeBatchNormBackward0" as "native batch norm"."""
    name = re.sub(r"Backward\d*$", "", type(node).__name__)
    word = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", name).lower()
    return {"mul": "a product or dropout", "unsafe view": "view"}.get(word, word)
