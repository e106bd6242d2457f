"""What happens around the loop: plain objects with three hooks, called in order.

A callback of your own subclasses `Callback`, overrides what it needs, and is named in `config.log.callbacks` as
"package.module:Class". Hooks see the `Run` (fmd.training.trainer) and may call `run.stop()`.
"""

import csv
import importlib
import json
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from tqdm.auto import tqdm

from fmd.sampling.sampler import Sampler
from fmd.training.step import Report
from fmd.utils.distributed import is_main_process
from fmd.utils.files import atomic_path
from fmd.utils.seed import stream
from fmd.utils.viz import image_grid, save_png

Line = dict[str, Any]  # a line of a log: numbers by name, None where there is none


class Callback:
    """The hooks. `on_step_end` comes after every dispatch (config.train.steps_per_dispatch steps)."""

    def on_train_start(self, run: Any) -> None: ...

    def on_step_end(self, run: Any) -> None: ...

    def on_train_end(self, run: Any) -> None: ...


class Log(Callback):
    """metrics.csv and metrics.jsonl: a line every `log.every` steps with the means over those steps.

    No clock in them: a resumed run writes the same bytes as an uninterrupted one. Reading a figure waits for the
    device, so a line is written one dispatch late, except where a checkpoint is about to rely on it.
    """

    def __init__(self) -> None:
        self._pending: tuple[int, Report] | None = None

    def on_train_start(self, run: Any) -> None:
        self._lines = LineLog(run.workdir / "metrics", after=run.step)

    def on_step_end(self, run: Any) -> None:
        self._write(run)
        if run.due(run.config.log.every):
            self._pending = (run.step, run.report)
        if run.finished or run.stopping or run.step % run.config.checkpoint.every == 0:
            self._write(run)

    def _write(self, run: Any) -> None:
        if self._pending is None:
            return
        (step, report), self._pending = self._pending, None
        report = jax.device_get(report)
        stop_if_not_finite(run, report)
        window, steps = report.window, max(float(report.window.steps), 1.0)
        line: Line = {"step": step}
        line |= {"loss": _rounded(window.loss / steps), "grad_norm": _rounded(window.grad_norm / steps)}
        line["learning_rate"] = _rounded(run.recipe.learning_rate(step - 1 - report.skipped))
        for i, (total, count) in enumerate(zip(window.bin_loss, window.bin_count, strict=True)):
            line[f"loss_t{i}"] = _rounded(total / count) if count else None
        line["skipped"] = int(report.skipped)
        self._lines.append(line)


def _rounded(value: Any) -> float:
    """Seven digits, all that float32 has."""
    return float(f"{float(value):.7g}")


class LineByLine:
    """Standard error where it is a pipe or a file: a line for each refresh of the bar instead of one endless line."""

    def write(self, text: str) -> None:
        sys.stderr.write(text.replace("\r", "\n"))

    def flush(self) -> None:
        sys.stderr.flush()


class Progress(Callback):
    """A progress bar with loss, images/s and time left; twice a minute where standard error is no terminal."""

    def on_train_start(self, run: Any) -> None:
        piped = {} if sys.stderr.isatty() or "ipykernel" in sys.modules else {"file": LineByLine(), "mininterval": 30.0}
        self._bar = tqdm(
            total=run.config.train.num_steps,
            initial=run.step,
            unit="step",
            desc="training",
            disable=not is_main_process(),
            **piped,
        )
        run.cleanup.callback(self._bar.close)
        self._clock, self._since = time.perf_counter(), run.step
        self._report: Report | None = None

    def on_step_end(self, run: Any) -> None:
        if run.due(run.config.log.every):
            if self._report is not None:
                window = jax.device_get(self._report.window)
                rate = (run.step - self._since) * run.config.train.batch_size / (time.perf_counter() - self._clock)
                self._bar.set_postfix_str(f"loss {window.loss / max(window.steps, 1):.4f}, {rate:.0f} images/s")
                self._clock, self._since = time.perf_counter(), run.step
            self._report = run.report
        self._bar.update(run.config.train.steps_per_dispatch)


class Samples(Callback):
    """samples/step_N.png every `log.samples_every` steps: a row per class, from the same noise each time."""

    def on_train_start(self, run: Any) -> None:
        per_class = run.config.log.samples_per_class
        classes = max(run.dataset.num_classes, 1)
        self._labels = np.repeat(np.arange(classes, dtype=np.int32), per_class)
        self._columns = per_class
        self._sampler = Sampler.from_facts(run.facts, model=run.model, layout=run.layout)

    def on_step_end(self, run: Any) -> None:
        if run.due(run.config.log.samples_every):
            images = self._sampler(self._labels, stream(run.config.seed, "sample"), params=run.weights)
            if is_main_process():
                picture = image_grid(images, columns=self._columns, scale=max(1, 56 // images.shape[1]))
                save_png(run.workdir / "samples" / f"step_{run.step:08d}.png", picture, overwrite=True)


class Evaluate(Callback):
    """validation.csv and .jsonl: what `evaluate(params)` returns, every `log.eval_every` steps.

    Args:
        make: builds, from the run, a function from parameters to a dictionary of figures; main.py hands it in, since
            this room knows nothing of evaluation.
    """

    def __init__(self, make: Callable[[Any], Callable[[Any], dict[str, float]]]) -> None:
        self._make = make

    def on_train_start(self, run: Any) -> None:
        self._evaluate = self._make(run)
        self._lines = LineLog(run.workdir / "validation", after=run.step)

    def on_step_end(self, run: Any) -> None:
        if run.due(run.config.log.eval_every):
            run.figures = {"step": run.step, **self._evaluate(run.weights)}
            self._lines.append(run.figures)


class Checkpoints(Callback):
    """Saves every `checkpoint.every` steps, at the end, and when the run is asked to stop. Put it last.

    A step that was also evaluated takes part in `checkpoint.keep_best`, with its validation loss.
    """

    def on_step_end(self, run: Any) -> None:
        if run.due(run.config.checkpoint.every) or run.stopping:
            stop_if_not_finite(run, jax.device_get(run.report))
            score = run.figures["validation_loss"] if run.figures.get("step") == run.step else None
            run.store.save(run.step, ema=run.state.ema, train=run.state.replace(ema={}), score=score)


class LineLog:
    """The same lines as CSV and as JSON lines. Opening it drops lines after step `after`, which will come again."""

    def __init__(self, stem: Path, *, after: int) -> None:
        self._csv, self._jsonl = stem.with_suffix(".csv"), stem.with_suffix(".jsonl")
        kept = [line for line in _read_lines(self._jsonl) if line["step"] <= after]
        for path in (self._csv, self._jsonl):
            if is_main_process() and (kept or path.exists()):
                with atomic_path(path, overwrite=True) as temporary:
                    temporary.touch()
                path.write_text("")
        for line in kept:
            self.append(line)

    def append(self, line: Line) -> None:
        if not is_main_process():
            return
        new = not self._csv.exists() or not self._csv.stat().st_size
        with open(self._jsonl, "a") as jsonl:
            jsonl.write(json.dumps(line) + "\n")
        with open(self._csv, "a", newline="") as table:
            writer = csv.writer(table)
            if new:
                writer.writerow(line)
            writer.writerow(line.values())


def _read_lines(path: Path) -> list[Line]:
    """The lines of a log; a last one cut short by a kill is left out."""
    lines = []
    for text in path.read_text().splitlines() if path.exists() else []:
        try:
            lines.append(json.loads(text))
        except json.JSONDecodeError:
            break
    return lines


def stop_if_not_finite(run: Any, report: Report) -> None:
    """Raises FloatingPointError, naming the step, before anything of a broken state is saved."""
    if report.first_bad >= 0 and not run.recipe.skip_nonfinite:
        raise FloatingPointError(
            f"the loss or its gradient is not finite at step {int(report.first_bad)}; the checkpoints before it are "
            f"good. Lower config.optimizer.learning_rate, or set config.train.on_nonfinite='skip'"
        )


def load(names: Iterable[str]) -> list[Callback]:
    """Callbacks from "package.module:Class" names.

    Raises:
        ValueError: for a name of another form, or one that cannot be imported.
    """
    found = []
    for name in names:
        module, _, attribute = name.partition(":")
        try:
            found.append(getattr(importlib.import_module(module), attribute)())
        except (ImportError, AttributeError, ValueError) as error:
            raise ValueError(f"config.log.callbacks: {name!r} is not package.module:Class ({error})") from None
    return found
