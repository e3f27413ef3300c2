"""What a run leaves: weights at recorded points, clocks, settings, status and totals over all
steps. No metrics."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from dlnlib.errors import BadParameter
from dlnlib.networks.model import Model
from dlnlib.networks.product import margins, predictor

__all__ = ["Trajectory"]


@dataclass(frozen=True)
class Trajectory:
    """T recorded points of one run or of many at once.

    weights   list; weights[k] is (T, *runs, d_{k+1}, d_k).
    clocks    (T, *runs) tensors by name, among step, log_time, log_norm (of all weights stacked),
              log_inverse_risk.
    settings  how the run was made: dynamics, step rule, loss, tolerances.
    status    how it ended, in words; with runs, a list with one entry a run (in flat order).
    totals    (*runs) sums and counts over every step made, recorded or not.
    model     the margin function of a run that is not a product of matrices: one run, weights (T,
              *shape) of any shape.
    """

    weights: list[Tensor]
    clocks: dict[str, Tensor]
    settings: dict[str, Any]
    status: str | list[str]
    totals: dict[str, Tensor] = field(default_factory=dict)
    model: Model | None = None

    def __len__(self) -> int:
        return self.weights[0].shape[0]

    @property
    def depth(self) -> int:
        """Number of layers."""
        return len(self.weights)

    @property
    def runs(self) -> tuple[int, ...]:
        """The leading dimensions of the weights, () for a single run."""
        return () if self.model is not None else tuple(self.weights[0].shape[1:-2])

    @property
    def final(self) -> list[Tensor]:
        """Weights at the last recorded point, (*runs, d_{k+1}, d_k) each."""
        return self.at(-1)

    @property
    def predictor(self) -> Tensor:
        """End-to-end vectors w of a network with one output, (T, *runs, d), also of a model that
        has them."""
        if self.model is not None:
            return self.model.predictor(self.weights)
        return predictor(self.weights)

    def at(self, i: int) -> list[Tensor]:
        """Weights at recorded point i."""
        return [W[i] for W in self.weights]

    def margins(self, z: Tensor | None = None) -> Tensor:
        """Margins <w, z_i>, (T, *runs, n); those of the model, if there is one."""
        if self.model is not None:
            return self.model(self.weights)
        return margins(self.weights, z)

    def between(self, clock: str, values: Tensor) -> list[Tensor]:
        """Weights of a single run at these values of a clock, (*values, d_{k+1}, d_k): cubic spline
        of the records.

        Records at which the clock does not exceed all earlier ones are left out. A value off the
        ends by rounding (1e-14 of the clock's largest, and of 1) is the end. Raises BadParameter
        for several runs and for values that the run did not pass.
        """
        from scipy.interpolate import CubicSpline

        time = self.clocks[clock].detach().cpu()
        if self.runs:
            raise BadParameter(f"runs of shape {self.runs} found, needed a single one: take run(r)")
        least, most = time[0], time.max()
        rounding = 1e-14 * max(1.0, time.abs().max().item())
        if not bool(((values >= least - rounding) & (values <= most + rounding)).all()):
            raise BadParameter(
                f"{clock} up to {values.max().item():.6g} asked for, the run went from "
                f"{least.item():.6g} to {most.item():.6g}: stay between"
            )
        rising = [0, *(time[1:] > time.cummax(0).values[:-1]).nonzero()[:, 0].add(1).tolist()]
        if len(rising) == 1:  # the clock never rose, so all values are its first
            return [W[:1].expand(len(values), *W.shape[1:]) for W in self.weights]
        x, at = time[rising].numpy(), values.clamp(least, most).cpu().numpy()
        return [W.new_tensor(CubicSpline(x, W[rising].cpu().numpy())(at)) for W in self.weights]

    def run(self, r: int) -> Trajectory:
        """The single run with flat index r."""
        if self.model is not None:
            return self
        shape = (len(self), -1)
        return Trajectory(
            weights=[W.reshape(*shape, *W.shape[-2:])[:, r] for W in self.weights],
            clocks={name: clock.reshape(shape)[:, r] for name, clock in self.clocks.items()},
            settings=self.settings,
            status=self.status if isinstance(self.status, str) else self.status[r],
            totals={name: total.reshape(-1)[r] for name, total in self.totals.items()},
        )
