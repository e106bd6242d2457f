"""Logs and sample grids for TensorBoard and Weights & Biases: name a class in `config.log.callbacks`.

    --config.log.callbacks="('fmd.training.callbacks.writers:TensorBoard',)"
        pip install 'flow-matching-designs[tensorboard]'
    --config.log.callbacks="('fmd.training.callbacks.writers:WeightsAndBiases',)"
        pip install 'flow-matching-designs[wandb]'

Everything in `run.logs` is passed on. After a resume the whole history is sent again, including lines lost in a kill.
"""

import json
import os
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fmd.blocks import as_plain
from fmd.extras import need
from fmd.files import atomic_path
from fmd.processes import is_main_process
from fmd.training.callbacks.base import Callback
from fmd.training.callbacks.samples import saved_grids
from fmd.training.run import Run

OTHERWISE = ", or take it out of config.log.callbacks"


class Writer(Callback):
    """Hands each new line and grid, in the order of steps, to `figures` and `picture`, on the main process."""

    def on_train_start(self, run: Run) -> None:
        self._passed: dict[str, int] = {}
        self._shown: set[Path] = set()
        if is_main_process():
            self.open(run)
            run.cleanup.callback(self.close)

    def on_step_end(self, run: Run) -> None:
        if not is_main_process():
            return
        first = not self._passed
        new: list[tuple[int, str, Any]] = []
        for name, log in run.logs.items():
            new += [(line["step"], name, line) for line in log.lines[self._passed.get(name, 0) :]]
            self._passed[name] = len(log.lines)
        if first or run.due(run.config.log.samples_every):
            new += [
                (step, "samples", path) for step, path in saved_grids(run.workdir, run.step) if path not in self._shown
            ]
            self._shown |= {path for _, name, path in new if name == "samples"}
        for step, name, what in sorted(new, key=lambda entry: entry[0]):
            if name == "samples":
                self.picture(step, what)
            else:
                known = {key: value for key, value in what.items() if key != "step" and value is not None}
                self.figures(step, {f"{name}/{key}": value for key, value in known.items()})

    def on_train_end(self, run: Run) -> None:
        self.on_step_end(run)

    def open(self, run: Run) -> None: ...

    def figures(self, step: int, values: Mapping[str, float]) -> None: ...

    def picture(self, step: int, path: Path) -> None: ...

    def close(self) -> None: ...


class TensorBoard(Writer):
    """Event files in workdir/tensorboard, for `tensorboard --logdir runs`."""

    def __init__(self) -> None:
        self._package = need("tensorboardX", "tensorboard", OTHERWISE)

    def open(self, run: Run) -> None:
        # The history is written again, so what older event files say about these steps does not count any more.
        self._writer = self._package.SummaryWriter(logdir=str(run.workdir / "tensorboard"), purge_step=0)
        text = json.dumps(as_plain(run.config), indent=2)
        self._writer.add_text("config", "    " + text.replace("\n", "\n    "), 0)  # Markdown for a block of code

    def figures(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def picture(self, step: int, path: Path) -> None:
        from PIL import Image

        with Image.open(path) as image:
            self._writer.add_image("samples", np.asarray(image.convert("RGB")), step, dataformats="HWC")
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


class WeightsAndBiases(Writer):
    """A run of the project "fmd" at wandb.ai; WANDB_PROJECT, WANDB_MODE=offline and so on are respected.

    The run's id is kept in workdir/wandb_id.txt, so that a resumed run continues its page.
    """

    def __init__(self) -> None:
        self._package = need("wandb", "wandb", OTHERWISE)

    def open(self, run: Run) -> None:
        file = run.workdir / "wandb_id.txt"
        if not file.exists():
            with atomic_path(file) as temporary:
                temporary.write_text(uuid.uuid4().hex[:12])
        self._run = self._package.init(
            project=os.environ.get("WANDB_PROJECT", "fmd"),
            id=file.read_text(),
            name=run.workdir.name,
            dir=str(run.workdir),
            config=as_plain(run.config),
            resume="allow",
        )
        self._from = self._run.step  # W&B refuses steps before those it has

    def figures(self, step: int, values: Mapping[str, float]) -> None:
        if step >= self._from:
            self._run.log(dict(values), step=step)

    def picture(self, step: int, path: Path) -> None:
        if step >= self._from:
            self._run.log({"samples": self._package.Image(str(path))}, step=step)

    def close(self) -> None:
        self._run.finish()
