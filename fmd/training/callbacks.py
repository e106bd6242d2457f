"""What happens around the loop: plain objects with three hooks, called in order.

The order is that of the list, and it matters: what a step leaves behind (its log line, its figures, its samples) is
there before the checkpoint of that step, so that a run that goes on from it has nothing to make up for.
"""

import importlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import jax
import optax

from fmd.sampling.grid import choose_rows, draw_grid
from fmd.sampling.sampler import Sampler
from fmd.training.lines import Line, LineLog
from fmd.training.step import Report
from fmd.training.timing import Timing, beside_the_steps
from fmd.utils.distributed import is_main_process
from fmd.utils.seed import stream
from fmd.utils.viz import save_png


class Callback:
    """The hooks. Subclass it, override what you need, name it in `config.log.callbacks` as "package.module:Class".

    `on_train_start` comes before the first step (also where a run goes on), `on_step_end` after every dispatch
    (config.train.steps_per_dispatch steps), `on_train_end` after the last one or a stop, not after an error. All
    processes of a run call every hook, and must take part in computations over all devices; files are for the main
    process (`fmd.utils.distributed.is_main_process()`). What a hook raises ends the run and is reported with the name
    of the callback; the checkpoints before it stay good.

    Of `run` a callback may use:
        config, workdir, facts, dataset, model: what is trained, where and on what.
        step: how many steps are done.
        weights: the averaged parameters, to sample or to measure with.
        state: the whole state; the next step reuses its memory, and that of `weights`, so copy what you keep.
        report: the step's own figures, still on the device; `jax.device_get` waits for them.
        figures: of the last evaluation, with its "step".
        logs: by name ("metrics", "validation", "timing"), each with the `lines` so far, those before a resume
            included. Your own `fmd.training.lines.LineLog` in it appears in the report and in the writers, too.
        due(every): whether it is time for what happens every so many steps; also on the last step.
        finished, stopping: whether this is the last step, or the last before an early end.
        stop(): asks for an early end, with a checkpoint.
        cleanup: an ExitStack; add to it what must be closed even after an error.
    """

    def on_train_start(self, run: Any) -> None: ...

    def on_step_end(self, run: Any) -> None: ...

    def on_train_end(self, run: Any) -> None: ...


HOOKS = ("on_train_start", "on_step_end", "on_train_end")


class Log(Callback):
    """metrics.csv and metrics.jsonl: a line every `log.every` steps with the means over those steps.

    No clock in them: a resumed run writes the same bytes as an uninterrupted one. Reading a figure waits for the
    device, so a line is written one dispatch late, except where a checkpoint is about to rely on it. What the clock
    says about the same steps goes to timing.jsonl.
    """

    def on_train_start(self, run: Any) -> None:
        self._log = run.logs["metrics"] = LineLog(run.workdir / "metrics", after=run.step)
        self._timing = Timing(run)
        self._pending: tuple[int, Report, Any] | None = None

        def beside(state: Any) -> tuple[jax.Array, jax.Array]:
            """Parameter norm and learning rate of the last step."""
            return optax.tree.norm(state.params), run.recipe.learning_rate(state.step - 1 - state.skipped)

        self._beside = jax.jit(beside, out_shardings=run.layout.replicated)

    def on_step_end(self, run: Any) -> None:
        self._timing.first_step(run)
        self._write(run)
        if run.due(run.config.log.every):
            self._pending = (run.step, run.report, self._beside(run.state))
        if run.due(run.config.checkpoint.every) or run.stopping:
            self._write(run)

    def on_train_end(self, run: Any) -> None:
        self._timing.line(run, run.step, last=True)

    def _write(self, run: Any) -> None:
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
        line["skipped"] = int(report.skipped)
        self._log.append(line)
        self._timing.line(run, step)


def _mean(total: Any, count: Any) -> float | None:
    return _rounded(total / count) if count else None


def _rounded(value: Any) -> float:
    """Seven digits, all that float32 has."""
    return float(f"{float(value):.7g}")


class Samples(Callback):
    """samples/step_N.png every `log.samples_every` steps: a row per class, from the same noise each time."""

    def on_train_start(self, run: Any) -> None:
        self._rows = choose_rows(run.facts, run.config.log.samples_per_class)
        self._sampler = Sampler.from_facts(run.facts, model=run.model, layout=run.layout)

    def on_step_end(self, run: Any) -> None:
        if not run.due(run.config.log.samples_every):
            return
        with beside_the_steps(run, "sampling"):
            images = self._sampler(self._rows.labels, stream(run.config.seed, "sample"), params=run.weights)
            if is_main_process():
                picture = draw_grid(images, self._rows)
                save_png(run.workdir / "samples" / f"step_{run.step:08d}.png", picture, overwrite=True)


def saved_grids(run: Any) -> list[tuple[int, Path]]:
    """(step, file) of the grids up to now. Those of later steps, from before a kill, will be made again."""
    files = (run.workdir / "samples").glob("step_????????.png")
    grids = [(int(path.stem.removeprefix("step_")), path) for path in files]
    return sorted((step, path) for step, path in grids if step <= run.step)


class Evaluate(Callback):
    """NAME.csv and .jsonl: what `evaluate(params)` returns, every so many steps.

    Args:
        make: builds, from the run, a function from parameters to a dictionary of figures; fmd.modes hands it in, since
            this room knows nothing of evaluation.
        name: of the log.
        every: the key of config.log that says how often.
    """

    def __init__(
        self, make: Callable[[Any], Callable[[Any], Line]], *, name: str = "validation", every: str = "eval_every"
    ) -> None:
        self._make, self._name, self._every = make, name, every

    def on_train_start(self, run: Any) -> None:
        self._evaluate = self._make(run)
        self._log = run.logs[self._name] = LineLog(run.workdir / self._name, after=run.step)

    def on_step_end(self, run: Any) -> None:
        if run.due(getattr(run.config.log, self._every)):
            with beside_the_steps(run, "evaluation"):
                figures = {"step": run.step, **self._evaluate(run.weights)}
            self._log.append(figures)
            run.figures = (run.figures if run.figures.get("step") == run.step else {}) | figures


class Checkpoints(Callback):
    """Saves every `checkpoint.every` steps, at the end, and when the run is asked to stop.

    Put it behind everything that leaves something of its step in the workdir. A step that was also evaluated takes
    part in `checkpoint.keep_best`, with its validation loss.
    """

    def on_step_end(self, run: Any) -> None:
        if run.due(run.config.checkpoint.every) or run.stopping:
            stop_if_not_finite(run, jax.device_get(run.report))
            score = run.figures.get("validation_loss") if run.figures.get("step") == run.step else None
            with beside_the_steps(run, "checkpoint"):
                run.store.save(run.step, ema=run.state.ema, train=run.state.replace(ema={}), score=score)


def stop_if_not_finite(run: Any, report: Report) -> None:
    """Raises FloatingPointError, naming the step, before anything of a broken state is saved."""
    if report.first_bad >= 0 and not run.recipe.skip_nonfinite:
        raise FloatingPointError(
            f"the loss or its gradient is not finite at step {int(report.first_bad)}; the checkpoints before it are "
            f"good. Go on with --config.train.on_nonfinite=skip, or begin anew with a lower learning rate in another "
            f"--workdir"
        )


def load(names: Iterable[str]) -> list[Callback]:
    """Callbacks from "package.module:Class" names.

    Raises:
        ValueError: for a name of another form, or one that cannot be imported or is no callback.
    """
    found = []
    for name in names:
        module, _, attribute = name.partition(":")
        try:
            make = getattr(importlib.import_module(module), attribute)
        except (ImportError, AttributeError, ValueError) as error:
            raise ValueError(f"config.log.callbacks: {name!r} is not package.module:Class ({error})") from None
        if lacking := [hook for hook in HOOKS if not callable(getattr(make, hook, None))]:
            raise ValueError(
                f"config.log.callbacks: {name!r} has no {lacking[0]}; make it a subclass of {__name__}.Callback"
            )
        found.append(make())
    return found
