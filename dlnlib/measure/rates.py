"""Power laws y = c x^e fitted to log-spaced data, for rates whose constant the theory does not
give."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from dlnlib.errors import BadParameter

__all__ = ["PowerLaw", "power_law"]


@dataclass(frozen=True)
class PowerLaw:
    """y = constant * x^exponent; `interval` is the 95 % confidence interval of the exponent."""

    exponent: float
    interval: tuple[float, float]
    constant: float
    points: int


def power_law(x: torch.Tensor, y: torch.Tensor) -> PowerLaw:
    """Least squares of log y on log x, both of shape (T,), with Student's interval for independent
    residuals.

    Points of one trajectory are not independent: the interval shows curvature and noise, not a
    significance. Raises BadParameter for fewer than 3 points, unequal lengths, values that are not
    positive and finite, or one x.
    """
    x, y = (torch.as_tensor(values, dtype=torch.float64).detach().cpu() for values in (x, y))
    if x.ndim != 1 or x.shape != y.shape or len(x) < 3:
        raise BadParameter(
            f"x of shape {tuple(x.shape)} and y of shape {tuple(y.shape)} found, needed "
            "one-dimensional "
            "of equal length, at least 3: record more points"
        )
    for name, values in (("x", x), ("y", y)):
        bad = (~((values > 0) & torch.isfinite(values))).nonzero()
        if len(bad):
            where = bad[0].item()
            raise BadParameter(
                f"{name}[{where}] = {values[where].item():.3g} found, needed positive and finite "
                "for a "
                "fit of logarithms: leave the point out"
            )
    from scipy.special import stdtrit

    s, t = x.log(), y.log()
    s_mean, t_mean = s.mean(), t.mean()
    ds, dt = s - s_mean, t - t_mean
    spread = ds.square().sum()
    if spread <= 1e-20 * (1 + s_mean**2):
        raise BadParameter(
            f"all {len(x)} values of x are {x[0].item():.6g}, needed different ones: record a range"
        )
    exponent = ((ds * dt).sum() / spread).item()
    residual = (dt - exponent * ds).square().sum().item() / (len(x) - 2)
    half = float(stdtrit(len(x) - 2, 0.975)) * math.sqrt(residual / spread.item())
    constant = math.exp((t_mean - exponent * s_mean).item())
    return PowerLaw(exponent, (exponent - half, exponent + half), constant, len(x))
