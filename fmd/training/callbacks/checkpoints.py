"""Checkpoints every so many steps, at the end, and when a run is asked to stop."""

import jax

from fmd.training.callbacks.base import Callback
from fmd.training.callbacks.log import stop_if_not_finite
from fmd.training.run import Run
from fmd.training.timing import beside_the_steps


class Checkpoints(Callback):
    """Saves every `checkpoint.every` steps. Put it behind everything that leaves something of its step in the workdir.

    A step that was also evaluated takes part in `checkpoint.keep_best`, with its validation loss.
    """

    def on_step_end(self, run: Run) -> None:
        if run.due(run.config.checkpoint.every) or run.stopping:
            stop_if_not_finite(run, jax.device_get(run.report))
            score = run.figures.get("validation_loss") if run.figures.get("step") == run.step else None
            with beside_the_steps(run, "checkpoint"):
                run.store.save(run.step, ema=run.state.ema, train=run.state.replace(ema={}), score=score)
