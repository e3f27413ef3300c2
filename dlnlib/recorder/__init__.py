"""Any network that is training: its linear layers found, followed and reported, with what the
theorems say of them.

Data go one way: `layers`, `finding` (which follow one another), `measuring` (one record),
`curvature` (on request), `recorder` (the loop), `keeping` (the file), `speaking` (which claim is
about which layer), `report` and its `page`.
"""

from dlnlib.recorder.finding import Found, Pair
from dlnlib.recorder.layers import Layer
from dlnlib.recorder.recorder import Recorder
from dlnlib.recorder.report import Report

__all__ = ["Found", "Layer", "Pair", "Recorder", "Report"]
