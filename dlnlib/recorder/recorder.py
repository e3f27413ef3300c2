"""`Recorder`: follows a model in a training loop, at steps spaced by their logarithm and within a
share of the loop's time."""

from __future__ import annotations

import math
import time
import weakref
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter

from dlnlib._checks import need_positive, require
from dlnlib.errors import BadData, BadParameter, DlnError
from dlnlib.networks.product import predictor
from dlnlib.recorder import keeping
from dlnlib.recorder.finding import Found, find
from dlnlib.recorder.layers import unlinked
from dlnlib.recorder.measuring import in_float64, of_layers, of_pairs, weights_of
from dlnlib.recorder.report import Report
from dlnlib.recorder.running import checked_data, flat, hessian_top, kernel_top, margins_of
from dlnlib.recorder.running import trained as trained_parameters

__all__ = ["Recorder", "COUNTED"]

COUNTED = 2000  # parameters up to which the weights are kept, for a count of what is conserved
ROWS = 64  # of the data, for the pass that finds which layers follow one another


class Recorder:
    r"""Follows any `torch.nn.Module` while it trains: `with dl.Recorder(model) as rec:` around the
    loop, `rec.step()` once a training step, `rec.report()` at any time.

    data       (x, y), the training set: then margins are recorded, and the distance to the maximum
               margin where the model is one run of linear layers with one output and no bias.
    optimizer  the one in use: the report then says what its step leaves of a law of the flow.
    per_decade, share
               records are made at steps 0, 1, 2, ... spaced by their logarithm, `per_decade` of
               them, as long as all of them together take at most this share of the loop's time
               (a first and a last one are always made); share=None: at all of these steps.
    hessian, kernel
               record the largest eigenvalue of the Hessian of loss(model(x), y), and of the tangent
               kernel, on the data. They take many gradients each.

    Weights are measured in float64. Nothing of the model or of the loop is changed: the model has a
    hook until its first call has ended, and that call is made once more with copies, the random
    state put back, to see which layers follow one another. Raises BadParameter, BadData,
    ShapeMismatch for what it is given, and BadParameter from `step` outside of `with`.
    """

    def __init__(
        self,
        model: nn.Module,
        data: tuple[Tensor, Tensor] | None = None,
        *,
        loss: Callable[[Tensor, Tensor], Tensor] | None = None,
        optimizer: torch.optim.Optimizer | None = None,
        per_decade: int = 8,
        share: float | None = 0.05,
        hessian: bool = False,
        kernel: bool = False,
    ):
        require(isinstance(model, nn.Module), "model", type(model).__name__, "a torch.nn.Module")
        need_positive(per_decade=per_decade, **({} if share is None else {"share": share}))
        if next(model.parameters(), None) is None:
            raise BadParameter("the model has 0 parameters, needed at least 1: nothing can train")
        if (hessian or kernel) and data is None or hessian and loss is None:
            raise BadParameter("hessian needs data=(x, y) and loss, kernel needs data: give them")
        self.model, self.loss, self.optimizer = model, loss, optimizer
        self.data = None if data is None else checked_data(data)
        self.per_decade, self.share = per_decade, share
        self.hessian, self.kernel = hessian, kernel
        self.found: Found | None = None
        self.steps, self.spent, self.elapsed = 0, 0.0, 0.0
        self.records: list[dict[str, float]] = []
        self.events: list[tuple[int, str]] = []
        self.start: dict[str, Tensor] = {}  # the balance of each pair in its first record
        self.predictors: dict[int, Tensor] = {}  # by step
        self.moves: dict[int, tuple[Tensor, Tensor]] = {}  # theta before and after the next step
        self.inputs: Tensor | None = None  # for a count of what is conserved
        self._begun: float | None = None
        self._before: Tensor | None = None
        self._cost, self._next, self._hook, self._busy = 0.0, 0, None, False
        self._known: dict[str, weakref.ref] = {}

    # --- the loop ---------------------------------------------------------------------------------

    def __enter__(self) -> Recorder:
        if self._begun is not None:
            raise BadParameter("this recorder is already in a `with`: make another one")
        self._begun = time.perf_counter()
        if self.found is None:
            if self.data is not None and not _lazy(self.model):
                self._look((self.data[0][:ROWS],), {})
                self._record()
            else:
                self._wait()
        return self

    def __exit__(self, kind, error, trace) -> None:
        try:
            late = not self.records or self.records[-1]["step"] < self.steps
            if kind is None and late and self.steps and not _lazy(self.model):
                self._ready()
                self._record()
        finally:
            self.elapsed, self._begun = self._time(), None
            self._unhook()

    def step(self) -> None:
        """Once after each training step; raises BadParameter outside of `with`."""
        if self._begun is None:
            raise BadParameter("step() outside of `with`, needed inside: with dl.Recorder(m) as r:")
        self.steps += 1
        if self._before is not None:
            after = flat(trained_parameters(self.model))
            if after.shape == self._before.shape:
                self.moves[self.steps - 1] = self._before, after
            self._before = None
        if self.steps >= self._next and self._affordable() and not _lazy(self.model):
            self._ready()
            self._record()

    def report(self, count: bool = True) -> Report:
        """All that was recorded, and what follows: see `Report`.

        With `count`, the quantities that the flow conserves are counted for models of at most
        2,000 parameters (seconds). Raises BadData before the first record.
        """
        if not self.records:
            raise BadData("0 records, needed 1: call model(x) in the loop, then step()")
        return Report.of(self, count)

    def save(self, path: str | Path) -> None:
        """Everything recorded as one file (.npz, no pickles), whole or not at all; raises
        BadOutput."""
        keeping.save(self, Path(path))

    @classmethod
    def load(cls, path: str | Path, model: nn.Module, data=None, **options) -> Recorder:
        """The recorder that was saved there, to go on with: the model must have its layers, and the
        weights that it then had, which are yours to load. Raises BadData."""
        recorder = cls(model, data, **options)
        keeping.fill(recorder, Path(path))
        recorder._next = _following(recorder.records[-1]["step"], recorder.per_decade)
        recorder._remember()
        return recorder

    # --- when -------------------------------------------------------------------------------------

    def _time(self) -> float:
        return self.elapsed + (0 if self._begun is None else time.perf_counter() - self._begun)

    def _affordable(self) -> bool:
        """Whether this record and a last one stay within the share of the time so far."""
        return self.share is None or self.spent + 2 * self._cost <= self.share * self._time()

    # --- which layers -----------------------------------------------------------------------------

    def _wait(self) -> None:
        self._unhook()
        self._hook = self.model.register_forward_hook(self._called, with_kwargs=True)

    def _unhook(self) -> None:
        if self._hook is not None:
            self._hook.remove()
            self._hook = None

    def _called(self, module, args, kwargs, output) -> None:
        """After the first forward pass: its arguments tell which layers follow one another."""
        if self._busy:
            return
        self._unhook()
        self._look(args, kwargs)
        if not self.records:
            self._record()

    def _look(self, args: tuple, kwargs: dict) -> None:
        clock, self._busy = time.perf_counter(), True
        model = getattr(self.model, "_orig_mod", self.model)  # a compiled one
        try:
            self.found = find(model, args, kwargs)
        except Exception as err:  # whatever a user's model may raise
            self.found = Found(unlinked(model))
            said = (str(err).splitlines() or [""])[0]
            self._say(f"which layers follow one another is not known: {type(err).__name__}: {said}")
        finally:
            self._busy = False
        alone = len(args) == 1 and not kwargs and isinstance(args[0], Tensor)
        if alone and self._small() and self.inputs is None:
            known = args[0] if self.data is None else self.data[0]
            self.inputs = known[: 2 * COUNTED].detach().clone()
        self._remember()
        self.spent += time.perf_counter() - clock

    def _ready(self) -> None:
        """Layers as they are now: known, and the ones that were known."""
        if self.found is None:
            self.found = Found(unlinked(self.model))
            self._say("no forward pass was seen: call model(x), not model.forward(x), or give data")
            self._remember()
        elif {k: id(p) for k, p in self.model.named_parameters()} != {
            k: id(ref()) for k, ref in self._known.items()
        }:
            self._say("parameters were replaced: balances are compared with this record")
            self.start.clear()
            self._before = None
            self.found = Found(unlinked(self.model))
            self._remember()
            if self.data is not None:
                self._look((self.data[0][:ROWS],), {})
            else:
                self._wait()

    def _remember(self) -> None:
        self._known = {k: weakref.ref(p) for k, p in self.model.named_parameters()}

    def _small(self) -> bool:
        return sum(p.numel() for p in self.model.parameters() if p.requires_grad) <= COUNTED

    # --- one record -------------------------------------------------------------------------------

    def _record(self) -> None:
        clock, self._busy = time.perf_counter(), True
        try:
            with torch.inference_mode(False):
                self.records.append({"step": self.steps} | self._measured())
            self._before = flat(trained_parameters(self.model)) if self._small() else None
        finally:
            self._busy = False
        self._next = _following(self.steps, self.per_decade)
        self._cost = time.perf_counter() - clock
        self.spent += self._cost

    def _measured(self) -> dict[str, float]:
        with torch.no_grad():
            weights = weights_of(self.model, self.found)
            values = of_layers(weights) | of_pairs(weights, self.found, self.start)
            sizes = [in_float64(p).square().sum().item() for p in self.model.parameters()]
            values["norm of all parameters"] = math.sqrt(sum(sizes))
            broken = [k for k, p in self.model.named_parameters() if not p.isfinite().all()]
            if broken:
                self._say(f"{broken[0]} has a NaN or an infinity")
            elif self.found.whole and _one_predictor(self.found):
                run = [weights[name][0] for name in self.found.runs[0]]
                self.predictors[self.steps] = predictor(run).cpu()
        return values | self._of_data()

    def _of_data(self) -> dict[str, float]:
        if self.data is None:
            return {}
        device = next(self.model.parameters()).device
        x, y = (part.to(device) for part in self.data)
        asked = {"margin": lambda: _least_and_right(margins_of(self.model, x, y))}
        if self.hessian:
            asked["top of the Hessian"] = lambda: hessian_top(self.model, self.loss, x, y)
        if self.kernel:
            asked["top of the kernel"] = lambda: kernel_top(self.model, x)
        values = {}
        for name, measured in asked.items():
            try:
                found = measured()
                values |= found if isinstance(found, dict) else {name: found}
            except (DlnError, RuntimeError, ArithmeticError) as err:
                values[name] = math.nan
                self._say(f"no {name}: {str(err).splitlines()[0]}")
        return values

    def _say(self, text: str) -> None:
        """Once for each text: a NaN stays."""
        if text not in [said for _, said in self.events]:
            self.events.append((self.steps, text))


def _lazy(model: nn.Module) -> bool:
    return any(isinstance(p, UninitializedParameter) for p in model.parameters())


def _least_and_right(margins: Tensor) -> dict[str, float]:
    """The least margin, and how many of the data are right."""
    right = (margins > 0).double().mean().item()
    return {"margin": margins.min().item(), "right answers": right}


def _one_predictor(found: Found) -> bool:
    """Linear layers without biases and one output: the model is a vector."""
    layers = [found.by_name[name] for name in found.runs[0]]
    plain = all(layer.kind == "linear" and not layer.bias for layer in layers)
    return plain and layers[-1].shape[0] == 1


def _following(step: int, per_decade: int) -> int:
    """The first step after this one whose logarithm is a multiple of 1/per_decade, rounded."""
    k = math.floor(per_decade * math.log10(max(step, 1)))
    while round(10 ** (k / per_decade)) <= step:
        k += 1
    return round(10 ** (k / per_decade))
