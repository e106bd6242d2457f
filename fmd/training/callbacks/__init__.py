"""Callbacks of the training loop: plain objects with three hooks, called in the order of their list.

The order matters: the log line, figures and samples of a step come before its checkpoint, so that a resumed run never
repeats or misses an output.
"""

from fmd.training.callbacks.base import Callback, load
from fmd.training.callbacks.checkpoints import Checkpoints
from fmd.training.callbacks.evaluate import Evaluate
from fmd.training.callbacks.log import Log
from fmd.training.callbacks.samples import Samples, saved_grids

__all__ = ["Callback", "Checkpoints", "Evaluate", "Log", "Samples", "load", "saved_grids"]
