"""Which claim of the ledger is about which layers of a network, which is not, and why."""

from __future__ import annotations

from dataclasses import dataclass

from dlnlib.recorder.finding import Found, Pair
from dlnlib.recorder.layers import Layer
from dlnlib.verdict.claims import registry

__all__ = ["Said", "speaking_of", "step_of"]

MOVED_OTHERWISE = {
    "shared": "is used more than once, so that its gradient is a sum over places",
    "frozen": "does not train",
    "partly frozen": "trains in part only",
    "parametrised": "is computed from other parameters, which are what trains",
    "grouped": "has a matrix in blocks",
}
GIVEN = "for separable data, the exponential or logistic loss, and the flow or small steps"
TAIL = "if all below is homogeneous, for the exponential or logistic loss and margins above 0"


@dataclass(frozen=True)
class Said:
    """Whether a claim speaks about these layers or pairs, and why; `title` is the ledger's."""

    claim: str
    title: str
    about: tuple[str, ...]
    speaks: bool
    why: str


def step_of(optimizer) -> tuple[bool | None, str]:
    """Whether the optimizer takes plain steps of gradient descent (None: not known), and what its
    step does to a law of the flow."""
    if optimizer is None:
        return None, "exact for the flow; what your step leaves of it depends on the optimizer"
    name = type(optimizer).__name__
    if name != "SGD":
        return False, f"{name} does not follow the gradient flow, so nothing keeps it"
    groups = optimizer.param_groups
    decay = max(group.get("weight_decay", 0) for group in groups)
    if any(group.get("momentum", 0) for group in groups):
        return False, "SGD with momentum follows the flow only when steps are small"
    if decay:
        return False, f"weight decay of {decay:g} shrinks it, by e^(-2 decay time)"
    if len({group["lr"] for group in groups}) > 1:
        return False, "learning rates differ between layers"
    return True, "each plain step of size eta moves it by eta^2 times the same of the gradients"


def speaking_of(found: Found, optimizer=None) -> list[Said]:
    """All claims that are about something here or about its neighbours, in the ledger's order."""
    said: dict[tuple[str, bool, str], list[str]] = {}
    for pair in found.pairs:
        claim, speaks, why = _of_pair(pair, found, optimizer)
        said.setdefault((claim, speaks, why), []).append(pair.name)
    for run in found.runs:
        for claim, speaks, why in _of_run(run, found):
            said.setdefault((claim, speaks, why), []).append(" > ".join(run))
    known = registry()
    order = list(known)
    lines = [
        Said(claim, known[claim].title, tuple(about), speaks, why)
        for (claim, speaks, why), about in said.items()
    ]
    return sorted(lines, key=lambda line: (order.index(line.claim), not line.speaks))


def _of_pair(pair: Pair, found: Found, optimizer) -> tuple[str, bool, str]:
    below, above = found.by_name[pair.below], found.by_name[pair.above]
    plain = below.kind == above.kind == "linear" and not below.bias
    claim = "LJ22-vertex" if pair.between else "JT18-eq2" if plain else "D-recorded"
    for layer in (below, above):
        for note in layer.notes:
            return claim, False, f"{layer.module or layer.name} {MOVED_OTHERWISE[note]}"
    kept, why = step_of(optimizer)
    form = {
        "LJ22-vertex": "||outgoing||^2 - ||incoming||^2 of each unit, a bias counted as incoming",
        "JT18-eq2": "the whole matrix W_{k+1}^T W_{k+1} - W_k W_k^T",
        "D-recorded": "the whole matrix, with - b b^T for a bias and kernels as rows or columns",
    }[claim]
    return claim, kept is not False, f"{form}; {why}"


def _of_run(run: tuple[str, ...], found: Found) -> list[tuple[str, bool, str]]:
    layers = [found.by_name[name] for name in run]
    if layers[0].kind == "convolution":
        return [("R20-impossibility", True, "a run of convolutions cannot stay aligned")]
    if layers[0].kind != "linear":
        return []
    why = _not_the_theorem(layers, found)
    if why:
        tail = _not_the_tail(run, layers, found)
        said = [("JT18-Thm1", False, why), ("JT18-Thm2", False, why)]
        return said if found.whole else [*said, ("LJ22-tail", not tail, tail or TAIL)]
    return [("JT18-Thm1", True, GIVEN), ("JT18-Thm2", True, GIVEN)]


def _not_the_tail(run: tuple[str, ...], layers: list[Layer], found: Found) -> str:
    """Why this run is not the linear end of a homogeneous network with one output."""
    if run[-1] not in found.ends or layers[-1].shape[0] != 1:
        return "the run does not end in the network's one output"
    biased = [layer.name for layer in found.layers if layer.bias]
    return f"biases make the network inhomogeneous: {', '.join(biased)}" if biased else ""


def _not_the_theorem(layers: list[Layer], found: Found) -> str:
    """Why the theorems on deep linear networks with one output are not about this run; "" if they
    are."""
    outputs = layers[-1].shape[0]
    biased = [layer.name for layer in layers if layer.bias]
    changed = [f"{layer.name} {MOVED_OTHERWISE[n]}" for layer in layers for n in layer.notes]
    if changed:
        return changed[0]
    if not found.whole:
        return "the run is a part of the network, and the theorem is about the whole of one"
    if outputs != 1:
        return f"{outputs} outputs, and the theorem has 1"
    return f"biases, of which the theorem has none: {', '.join(biased)}" if biased else ""
