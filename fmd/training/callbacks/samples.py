"""samples/step_N.png: a grid of samples from the same noise each time."""

from pathlib import Path

from fmd.pictures.grids import choose_rows, draw_grid, save_png
from fmd.processes import is_main_process
from fmd.randomness import stream
from fmd.sampling import inputs
from fmd.sampling.sampler import Sampler
from fmd.telling import rows_like, tell_rows
from fmd.training.callbacks.base import Callback
from fmd.training.run import Run
from fmd.training.timing import beside_the_steps

EXAMPLES = 8  # conditions in the picture of a model that is told an image


class Samples(Callback):
    """A grid every `log.samples_every` steps: a row per class, or per test image for a model that is told one."""

    def on_train_start(self, run: Run) -> None:
        self._sampler = Sampler.from_info(run.info, model=run.model, layout=run.layout)
        self._draws = run.config.log.samples_per_class
        if inputs.told_an_image(run.info):
            self._asked = inputs.of_test_images(run.info, run.dataset, EXAMPLES)
            return
        self._rows = choose_rows(run.info.classes, run.info.class_names, self._draws)
        test, labels = run.dataset.test, self._rows.labels
        self._asked = inputs.Inputs(tell_rows(run.info, test, rows_like(test, labels), labels), labels)

    def on_step_end(self, run: Run) -> None:
        if not run.due(run.config.log.samples_every):
            return
        paired = inputs.told_an_image(run.info)
        with beside_the_steps(run, "sampling"):
            draws, key = self._draws if paired else 1, stream(run.config.seed, "sample")
            images = inputs.draw(self._sampler, self._asked, key, draws=draws, params=run.weights, quiet=True).images
            if is_main_process():
                scale = max(1, 56 // images.shape[1])
                picture = (
                    inputs.picture(run.info, self._asked, images, draws=draws, scale=scale)
                    if paired
                    else draw_grid(images, self._rows)
                )
                save_png(run.workdir / "samples" / f"step_{run.step:08d}.png", picture, overwrite=True)


def saved_grids(workdir: Path, step: int) -> list[tuple[int, Path]]:
    """(step, file) of the grids up to a step. Those of later steps, from before a kill, will be made again."""
    files = (workdir / "samples").glob("step_????????.png")
    grids = [(int(path.stem.removeprefix("step_")), path) for path in files]
    return sorted((number, path) for number, path in grids if number <= step)
