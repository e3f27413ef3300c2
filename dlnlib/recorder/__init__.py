"""Any network that is training: its linear layers found, followed and reported, with what the
theorems say of them.

Data go one way: `layers`, `finding` (which follow one another), `measuring` (weights), `running`
(the model: margins, curvature), `recorder` (the loop), `keeping` (the file), `speaking` (which
claim is about which layer), `report` and its `page`.
"""

from dlnlib.recorder.finding import Found, Pair, find
from dlnlib.recorder.layers import Layer
from dlnlib.recorder.measuring import balance_of, columns, rows, weights_of
from dlnlib.recorder.recorder import Recorder
from dlnlib.recorder.report import Report
from dlnlib.recorder.running import as_function, flat, hessian_top, kernel_top, trained
from dlnlib.recorder.speaking import Said, speaking_of

__all__ = [
    "Found",
    "Layer",
    "Pair",
    "Recorder",
    "Report",
    "Said",
    "as_function",
    "balance_of",
    "columns",
    "find",
    "flat",
    "hessian_top",
    "kernel_top",
    "rows",
    "speaking_of",
    "trained",
    "weights_of",
]
