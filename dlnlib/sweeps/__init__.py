"""Sweeps: a chapter over a grid of parameters, one table, and what it shows. Knows no torch."""

from dlnlib.sweeps.conduct import Sweep, sweep
from dlnlib.sweeps.statistics import Report, report

__all__ = ["Report", "Sweep", "report", "sweep"]
