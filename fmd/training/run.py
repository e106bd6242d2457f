"""A run in progress: everything that callbacks see."""

from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import jax
from jaxtyping import PyTree

from fmd.checkpoints.store import Store
from fmd.config import Config
from fmd.data import ImageDataset
from fmd.devices import Layout
from fmd.models.contract import Model
from fmd.models.flops import Cost
from fmd.run_info import RunInfo
from fmd.training.lines import JsonLines, Line
from fmd.training.origin import Teacher
from fmd.training.state import TrainState
from fmd.training.step import Recipe, Report
from fmd.types import Params


@dataclass
class Run:
    """The parts of a run and where it stands."""

    config: Config
    workdir: Path
    info: RunInfo  # stored beside the checkpoints
    dataset: ImageDataset
    model: Model
    recipe: Recipe
    layout: Layout
    shardings: PyTree  # of the state
    store: Store
    state: TrainState  # the next step reuses its memory: copy what you keep
    teacher: Teacher | None = None  # the frozen one of some methods
    cost: Cost | None = None  # operations of a step, known once it is traced
    step: int = 0
    last_report: Report | None = None  # of the last dispatch; still on the device
    figures: Line = field(default_factory=dict)  # of the last evaluation, with its "step"
    logs: dict[str, JsonLines] = field(default_factory=dict)  # by name ("metrics"), each with its `lines` so far
    seconds: dict[str, float] = field(default_factory=dict)  # spent beside the steps of this process, by what for
    stop_asked: bool = False  # see `stop`
    stopping: bool = False  # this dispatch is the last one, for all processes of the run
    cleanup: ExitStack = field(default_factory=ExitStack)  # callbacks add here what must be closed, also after an error

    def stop(self) -> None:
        """Asks for an early end: the run saves a checkpoint after the next dispatch (or the one after it) and ends."""
        self.stop_asked = True

    @property
    def report(self) -> Report:
        """The report of the last dispatch."""
        assert self.last_report is not None, "no step was done yet"
        return self.last_report

    @property
    def averaged(self) -> Params:
        """The averaged parameters that samples and figures are made with, in parts as `state` has them.

        They share its memory, which the next step reuses: copy what you keep.
        """
        averaged: Params = self.state.ema[self.info.averages[0]]
        return averaged

    @property
    def weights(self) -> Params:
        """`averaged`, whole on every device."""
        weights: Params = jax.device_put(self.averaged, self.layout.replicated)
        return weights

    @property
    def finished(self) -> bool:
        """True after the last step."""
        return self.step >= self.config.train.num_steps

    def due(self, every: int) -> bool:
        """True on multiples of `every` (0: never) and on the last step."""
        return self.finished or (every > 0 and self.step % every == 0)
