"""samples/step_N.png: a grid of samples from the same noise each time."""

import math
from pathlib import Path

from fmd.pictures.grids import save_png
from fmd.processes import is_main_process
from fmd.randomness import stream
from fmd.sampling.overview import Overview
from fmd.sampling.sampler import Sampler
from fmd.training.callbacks.base import Callback
from fmd.training.run import Run
from fmd.training.timing import beside_the_steps
from fmd.types import Number


class Samples(Callback):
    """A grid every `log.samples_every` steps: a row per class, or per test image for a model that is told one."""

    def on_train_start(self, run: Run) -> None:
        self._sampler = Sampler.from_info(run.info, model=run.model, layout=run.layout)
        self._overview = Overview.of(run.info, run.dataset, run.config.log.samples_per_class)

    def on_step_end(self, run: Run) -> None:
        if not run.due(run.config.log.samples_every):
            return
        with beside_the_steps(run, "sampling"):
            key = stream(run.config.seed, "sample")
            images = self._overview.draw(self._sampler, key, params=run.averaged, quiet=True).images
            if is_main_process():
                picture = self._overview.picture(images)
                save_png(run.workdir / "samples" / f"step_{run.step:08d}.png", picture, overwrite=True)


def saved_grids(workdir: Path, step: Number = math.inf) -> list[tuple[int, Path]]:
    """(step, file) of the grids up to a step. Those of later steps, from before a kill, will be made again."""
    named = ((path.stem.removeprefix("step_"), path) for path in (workdir / "samples").glob("step_*.png"))
    return sorted((int(number), path) for number, path in named if number.isdigit() and int(number) <= step)
