"""Descent on any model, full-batch or not, by the rules of `rules` and `steepest`, with counts over
all steps."""

from __future__ import annotations

import math

import numpy as np
import torch

from dlnlib.dynamics.rules import Constant, LossScaled
from dlnlib.dynamics.steepest import NORMS, Adam, LogLoss, Seen, Steepest
from dlnlib.dynamics.task import Task
from dlnlib.dynamics.trajectory import Trajectory
from dlnlib.errors import BadParameter, NonFinite
from dlnlib.losses.risks import ModelRisk
from dlnlib.networks.model import Linear, Pass

__all__ = ["takes", "run"]

_COUNTED = ("l2", "linf", "l1")  # norms in which the smoothed margin is watched in any case
_ROUNDING = 1e-13
# rules that make nothing of the pass through the model
_BLIND = (Constant, LossScaled, LogLoss, Steepest, Adam)


def takes(task: Task) -> bool:
    """Margins of a model."""
    return isinstance(task.objective, ModelRisk)


def run(task: Task) -> Trajectory:
    """Make the steps of one run of a model, never underflowing.

    Totals: `steps`; `risk_increases`; and where the degree L is known, for each norm (l2, linf, l1,
    and the rule's own), over the steps from points with sum l(q_i) < l(0), `decreases_<norm>` of
    the smoothed margin l^{-1}(sum l)/||theta||^L beyond rounding, and `largest_decrease_<norm>`,
    relative.
    """
    model, loss, rule = task.objective.model, task.objective.loss, task.rule
    if loss.name == "squared":
        raise BadParameter(
            "the squared loss has no log domain here: use exponential, logistic or polynomial"
        )
    if task.until is not None or task.structure is not None:
        raise BadParameter("until and structure go with products of matrices: leave them out")
    start, goals = task.weights, task.goals
    move = _mover(rule, model, loss, task.momentum, task.weight_decay)
    if _compiled(model, loss, rule):
        points, clocks, status, totals = _one_layer(model.flat(start), model, rule, goals)
    else:
        points, clocks, status, totals = _steps(model.flat(start), model, loss, rule, move, goals)
    path = start[0].new_tensor(np.array(points))
    step, log_time, psi = start[0].new_tensor(np.array(clocks)).unbind(1)
    return Trajectory(
        weights=model.parts(path),
        clocks={
            "step": step,
            "log_time": log_time,
            "log_norm": torch.linalg.vector_norm(path, dim=1).log(),
            "log_inverse_risk": psi,
        },
        settings=task.settings("descent", model=model.name, rule_of_theorem=False),
        status=status,
        totals=totals,
        model=model,
    )


def _compiled(model, loss, rule):
    """Whether `_kernels.one_layer` makes the same steps."""
    norms = isinstance(rule, Steepest) and rule.norm != "spectral"
    return (
        isinstance(model, Linear)
        and loss.name == "exponential"
        and (norms or isinstance(rule, Adam))
    )


def _one_layer(theta, model, rule, goals):
    """Points and clocks at the steps `goals`, status and totals, by the compiled loop."""
    from dlnlib._kernels import one_layer as onelayer

    name, epsilon, betas = "adam", -math.inf, (0.9, 0.999)
    if isinstance(rule, Steepest):
        name = rule.norm
    else:
        epsilon, betas = (
            math.log(rule.epsilon) if rule.epsilon > 0 else -math.inf,
            (rule.beta1, rule.beta2),
        )
    theta, moments = theta.copy(), np.zeros((2, model.size))
    state, falls, largest = np.array([0.0, math.nan, 0, 0, 0, 0, 0]), np.zeros(3), np.zeros(3)
    points, clocks, last, number = [], [], 0, onelayer.RULES.index(name)
    for goal in goals:
        count = goal - last
        psi = onelayer.advance(
            theta, model.z, number, rule.h, epsilon, betas, moments, state, falls, largest, count
        )
        if not math.isfinite(psi):
            if goal == 0:
                raise NonFinite(f"log(1/risk) at the start is {psi}, needed a finite number")
            break
        last = goal
        points.append(theta.copy())
        clocks.append((goal, math.log(goal * rule.h) if goal else -math.inf, psi))
    found = {"steps": torch.tensor(last), "risk_increases": torch.tensor(int(state[2]))}
    for k, norm in enumerate(onelayer.WATCHED):
        found[f"decreases_{norm}"] = torch.tensor(int(falls[k]))
        found[f"largest_decrease_{norm}"] = torch.tensor(largest[k], dtype=torch.float64)
    return points, clocks, "finished" if last == goals[-1] else f"diverged after step {last}", found


def _steps(theta, model, loss, rule, move, goals):
    """The same for any model and rule."""
    look, steps = _looker(model, loss, rule), goals[-1]
    counted = tuple(
        dict.fromkeys((*_COUNTED, *([rule.norm] if isinstance(rule, Steepest) else [])))
    )
    watch = _Watch(model, loss, counted)
    goals = set(goals)
    points, clocks, log_time, status, made = [], [], -math.inf, "finished", 0
    for t in range(steps + 1):
        seen = look(theta)
        psi = seen.psi
        if not math.isfinite(psi):
            if t == 0:
                raise NonFinite(f"log(1/risk) at the start is {psi}, needed a finite number")
            status = f"diverged at step {t}"
            break
        watch(theta, psi, len(seen.log_p))
        made = t
        if t in goals:
            points.append(theta)
            clocks.append((t, log_time, psi))
        if t == steps:
            break
        delta, lasted = move(seen)
        theta, log_time = theta + delta, np.logaddexp(log_time, lasted)
    return points, clocks, status, {"steps": torch.tensor(made), **watch.totals()}


def _looker(model, loss, rule):
    """A function of theta to what is `Seen` there, compiled for models that have kernels."""
    from dlnlib._kernels import dual
    from dlnlib._kernels.packed import packed
    from dlnlib._kernels.packed_step import DARK, Problem, observe
    from dlnlib._kernels.slopes import number_of

    number = number_of(loss)
    net = packed(model) if isinstance(rule, _BLIND) else None

    def compiled(theta):
        view = observe(Problem(net, number, False), theta, None, None)
        at = Pass(theta, view.q, view.pre)
        return Seen(theta, at, view.log_p, view.log_mean, view.psi, view.raw)

    def plain(theta):
        at = model.forward(theta)
        log_p, log_mean, psi = dual.slopes(number, at.q)
        rows = np.flatnonzero(log_p > log_p.max() - DARK)
        return Seen(theta, at, log_p, log_mean, psi, np.exp(log_p[rows]) @ model.jacobian(at, rows))

    return plain if net is None else compiled


class _Watch:
    """Counts of increases of the risk, and of decreases of the smoothed margin in several norms."""

    def __init__(self, model, loss, norms):
        self.model, self.loss = model, loss
        self.norms = norms if model.degree is not None else ()
        self.last = None
        self.increases, self.decreases, self.largest = (
            0,
            dict.fromkeys(norms, 0),
            dict.fromkeys(norms, 0.0),
        )

    def __call__(self, theta, psi, n):
        sizes = [NORMS[name][0](theta, self.model) for name in self.norms]
        alpha = self.inverse(math.log(n) - psi)
        if self.last is not None:
            before, margin_before, sizes_before = self.last
            self.increases += psi < before - _ROUNDING * (1 + abs(before))
            if margin_before > 0:
                for name, size, old in zip(self.norms, sizes, sizes_before, strict=True):
                    fall = self.model.degree * math.log(size / old) - (
                        math.log(alpha / margin_before) if alpha > 0 else -math.inf
                    )
                    if fall > _ROUNDING:
                        self.decreases[name] += 1
                        self.largest[name] = max(self.largest[name], -math.expm1(-fall))
        self.last = psi, alpha, sizes

    def inverse(self, log_sum):
        if self.loss.name == "exponential":
            return -log_sum
        if self.loss.name == "logistic" and log_sum < -40:
            return -log_sum
        return self.loss.inverse(torch.tensor(log_sum, dtype=torch.float64)).item()

    def totals(self):
        found = {"risk_increases": torch.tensor(self.increases)}
        for name in self.norms:
            found[f"decreases_{name}"] = torch.tensor(self.decreases[name])
            found[f"largest_decrease_{name}"] = torch.tensor(
                self.largest[name], dtype=torch.float64
            )
        return found


def _mover(rule, model, loss, momentum, weight_decay):
    if hasattr(rule, "mover"):
        if momentum or weight_decay:
            raise BadParameter(
                f"momentum and weight_decay go with Constant, not with {rule!r}: leave them 0"
            )
        return rule.mover(model, loss)
    if isinstance(rule, Constant):
        velocity = np.zeros(model.size)

        def constant(seen):
            nonlocal velocity
            gradient = -math.exp(seen.log_mean) * seen.ascent + weight_decay * seen.theta
            velocity = momentum * velocity - rule.eta * gradient
            return velocity, math.log(rule.eta)

        return constant
    if isinstance(rule, LossScaled) and model.degree is not None and not (momentum or weight_decay):
        L = model.degree

        def scaled(seen):
            curvature = max(1.0, rule.curvature(L, float(seen.theta @ seen.theta)))
            log_eta = math.log(rule.c / curvature) + seen.psi
            return math.exp(log_eta + seen.log_mean) * seen.ascent, log_eta

        return scaled
    raise BadParameter(
        f"rule {rule!r} is not one for {model.name}: take Constant or one of dlnlib.steepest"
    )
