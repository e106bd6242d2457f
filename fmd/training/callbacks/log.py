"""metrics.csv and metrics.jsonl: the training loss and its surroundings, line by line."""

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array

from fmd.training.callbacks.base import Callback
from fmd.training.lines import Line, LineLog
from fmd.training.run import Run
from fmd.training.state import TrainState
from fmd.training.step import Report
from fmd.training.timing import Timing
from fmd.types import Scalars


class Log(Callback):
    """A line every `log.every` steps with the means over those steps.

    No clock in them: a resumed run writes the same bytes as an uninterrupted one. Reading a figure waits for the
    device, so a line is written one dispatch late, except where a checkpoint is about to rely on it. Times go to
    timing.jsonl.
    """

    def on_train_start(self, run: Run) -> None:
        self._log = run.logs["metrics"] = LineLog(run.workdir / "metrics", after=run.step)
        self._timing = Timing(run)
        self._pending: tuple[int, Report, tuple[Array, Array]] | None = None

        def beside(state: TrainState) -> tuple[Array, Array]:
            """Parameter norm and learning rate of the last step."""
            rate = run.recipe.learning_rate(state.step - 1 - state.skipped)
            return optax.tree.norm(state.params), jnp.asarray(rate, jnp.float32)

        self._beside = jax.jit(beside, out_shardings=run.layout.replicated)

    def on_step_end(self, run: Run) -> None:
        self._timing.first_step(run)
        self._write(run)
        if run.due(run.config.log.every):
            self._pending = (run.step, run.report, self._beside(run.state))
        if run.due(run.config.checkpoint.every) or run.stopping:
            self._write(run)

    def on_train_end(self, run: Run) -> None:
        self._timing.line(run, run.step, last=True)

    def _write(self, run: Run) -> None:
        if self._pending is None:
            return
        (step, report, beside), self._pending = self._pending, None
        report, (param_norm, learning_rate) = jax.device_get((report, beside))
        stop_if_not_finite(run, report)
        window = report.window
        line: Line = {"step": step, "loss": _mean(window.loss, window.steps)}
        line |= {"grad_norm": _mean(window.grad_norm, window.steps), "param_norm": _rounded(param_norm)}
        line["learning_rate"] = _rounded(learning_rate)
        for i, (total, count) in enumerate(zip(window.bin_loss, window.bin_count, strict=True)):
            line[f"loss_t{i}"] = _mean(total, count)
        line |= {name: _mean(total, window.steps) for name, total in window.figures.items()}
        line["skipped"] = int(report.skipped)
        self._log.append(line)
        self._timing.line(run, step)


def stop_if_not_finite(run: Run, report: Report) -> None:
    """Raises FloatingPointError, naming the step, before anything of a broken state is saved."""
    if report.first_bad >= 0 and not run.recipe.skip_nonfinite:
        raise FloatingPointError(
            f"the loss or its gradient is not finite at step {int(report.first_bad)}; the checkpoints before it are "
            f"good. Go on with --config.train.on_nonfinite=skip, or begin anew with a lower learning rate in another "
            f"--workdir"
        )


def _mean(total: Scalars, count: Scalars) -> float | None:
    return _rounded(total / count) if count else None


def _rounded(value: Scalars) -> float:
    """Seven digits, all that float32 has."""
    return float(f"{float(value):.7g}")
