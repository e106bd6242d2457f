"""The progress bar: in a terminal, in a notebook, and as a few lines in a file or a pipe."""

import sys
from typing import Any

from tqdm.auto import tqdm

from fmd.training.callbacks import Callback
from fmd.utils.distributed import is_main_process


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
        self._begun = False

    def on_step_end(self, run: Any) -> None:
        if not self._begun:
            self._bar.unpause()  # what went before was compilation, and says nothing about the time left
            self._begun = True
        metrics, timing = run.logs["metrics"].lines, run.logs["timing"].lines
        if run.due(run.config.log.every) and metrics and timing:
            loss, rate = metrics[-1]["loss"], timing[-1]["images_per_second"]
            shown = [f"loss {loss:.4f}"] if loss is not None else []
            shown += [f"{rate:.0f} images/s"] if rate is not None else []
            self._bar.set_postfix_str(", ".join(shown), refresh=False)
        self._bar.update(run.config.train.steps_per_dispatch)
