"""validation.csv, quality.csv: figures of the averaged weights, measured every so many steps."""

from collections.abc import Callable

from fmd.training.callbacks.base import Callback
from fmd.training.lines import Line, LineLog
from fmd.training.run import Run
from fmd.training.timing import beside_the_steps
from fmd.types import Params


class Evaluate(Callback):
    """NAME.csv and .jsonl: the figures that `evaluate(params)` returns.

    Args:
        make: builds, from the run, a function from parameters to figures. `fmd.commands` hands it in, since this room
            knows nothing of evaluation.
        name: of the log.
        every: the key of config.log that says how often.
    """

    def __init__(
        self, make: Callable[[Run], Callable[[Params], Line]], *, name: str = "validation", every: str = "eval_every"
    ) -> None:
        self._make, self._name, self._every = make, name, every

    def on_train_start(self, run: Run) -> None:
        self._evaluate = self._make(run)
        self._log = run.logs[self._name] = LineLog(run.workdir / self._name, after=run.step)

    def on_step_end(self, run: Run) -> None:
        if run.due(getattr(run.config.log, self._every)):
            with beside_the_steps(run, "evaluation"):
                figures: Line = {"step": run.step, **self._evaluate(run.averaged)}
            self._log.append(figures)
            run.figures = (run.figures if run.figures.get("step") == run.step else {}) | figures
