"""The progress bar: in a terminal, in a notebook, and as a few lines in a file or a pipe."""

import os
import sys
from typing import Any

from tqdm.auto import tqdm

from fmd.processes import is_main_process
from fmd.training.callbacks.base import Callback
from fmd.training.run import Run


class LineByLine:
    """Standard error where it is a pipe or a file: a line for each refresh of the bar instead of one endless line."""

    def write(self, text: str) -> None:
        sys.stderr.write(text.replace("\r", "\n"))

    def flush(self) -> None:
        sys.stderr.flush()


def bar_settings() -> dict[str, Any]:
    """Keywords of the bar for the place where it is shown."""
    if "ipykernel" in sys.modules:
        return {}
    if not sys.stderr.isatty():
        return {"file": LineByLine(), "mininterval": 30.0}
    size = os.get_terminal_size(sys.stderr.fileno())
    # Containers and some build servers give a terminal of no size, in which the bar would not be seen.
    return {} if size.columns and size.lines else {"ncols": 100, "nrows": 24}


class Progress(Callback):
    """Steps, time left, and the newest loss and images/s from the log. Put it behind `Log`.

    Where standard error is no terminal it says so twice a minute, in lines of their own.
    """

    def on_train_start(self, run: Run) -> None:
        self._bar = tqdm(
            total=run.config.train.num_steps,
            initial=run.step,
            unit="step",
            desc="training",
            disable=not is_main_process(),
            **bar_settings(),
        )
        run.cleanup.callback(self._bar.close)
        self._begun, self._lines = False, len(run.logs["metrics"].lines)

    def on_step_end(self, run: Run) -> None:
        if not self._begun:
            self._bar.unpause()  # what went before was compilation, and says nothing about the time left
            self._begun = True
        metrics = run.logs["metrics"].lines
        if len(metrics) > self._lines:
            self._lines = len(metrics)
            loss, rate = metrics[-1]["loss"], run.logs["timing"].lines[-1]["images_per_second"]
            shown = [f"loss {loss:.4f}"] if loss is not None else []
            shown += [f"{rate:.0f} images/s"] if rate is not None else []
            self._bar.set_postfix_str(", ".join(shown), refresh=False)
        self._bar.update(run.config.train.steps_per_dispatch)
