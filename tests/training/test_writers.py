"""The lines that TensorBoard and Weights & Biases get, with stubs in the place of their packages."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from fmd import commands
from fmd.training import callbacks
from fmd.training.callbacks import saved_grids
from tests.helpers import toys


class Writer:
    """Stands for tensorboardX.SummaryWriter; keeps what it is told."""

    made: list = []  # noqa: RUF012

    def __init__(self, logdir, purge_step):
        self.logdir, self.purge_step, self.scalars, self.images, self.texts, self.closed = (
            logdir,
            purge_step,
            [],
            [],
            [],
            0,
        )
        self.made.append(self)

    def add_scalar(self, name, value, step):
        assert not self.closed
        self.scalars.append((step, name, value))

    def add_image(self, name, image, step, dataformats):
        assert dataformats == "HWC"
        self.images.append((step, name, image))

    def add_text(self, name, text, step):
        self.texts.append(name)

    def flush(self): ...

    def close(self):
        self.closed += 1


class WandbRun:
    def __init__(self, step, settings):
        self.step, self.settings, self.logged, self.finished = step, settings, [], 0

    def log(self, values, step):
        assert step >= self.step, "steps must be monotonically increasing"
        self.step = step
        self.logged.append((step, values))

    def finish(self):
        self.finished += 1


@pytest.fixture
def tensorboard(monkeypatch):
    monkeypatch.setattr(Writer, "made", [])
    monkeypatch.setitem(sys.modules, "tensorboardX", SimpleNamespace(SummaryWriter=Writer))
    return Writer.made


@pytest.fixture
def wandb(monkeypatch):
    """The runs that were opened; each begins where the one before ended, as on the server."""
    made = []

    def init(**settings):
        made.append(WandbRun(made[-1].step + 1 if made else 0, settings))
        return made[-1]

    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=init, Image=lambda path: ("picture", path)))
    return made


def config(*names):
    log = {**toys.settings()["log"], "callbacks": [f"fmd.training.callbacks.writers:{name}" for name in names]}
    return toys.config(parallel={"mode": "jit"}, log=log)


def history(run):
    """(step, name, value) of every figure in the logs of a run."""
    return sorted(
        (line["step"], f"{name}/{key}", value)
        for name, log in run.logs.items()
        for line in log.lines
        for key, value in line.items()
        if key != "step" and value is not None
    )


class Stop(callbacks.Callback):
    def on_step_end(self, run):
        if run.step == 6:
            run.stop()


class Fall(callbacks.Callback):
    def on_step_end(self, run):
        if run.step == 10:
            raise RuntimeError("fell")


def test_both_get_every_figure_and_grid_once_in_order(tmp_path, tensorboard, wandb):
    run = commands.train_config(config("TensorBoard", "WeightsAndBiases"), tmp_path / "run")
    (board,), (page,) = tensorboard, wandb
    assert sorted(board.scalars) == history(run)
    assert [step for step, _, _ in board.scalars] == sorted(step for step, _, _ in board.scalars)
    assert [step for step, _, _ in board.images] == [4, 8, 12]
    for (_, path), (_, _, image) in zip(saved_grids(run.workdir, run.step), board.images, strict=True):
        np.testing.assert_array_equal(image, np.asarray(Image.open(path).convert("RGB")))
    assert board.logdir == str(tmp_path / "run" / "tensorboard")
    assert board.texts == ["config"]
    assert board.closed == 1

    pictures = [(step, values["samples"]) for step, values in page.logged if "samples" in values]
    assert pictures == [(step, ("picture", str(path))) for step, path in saved_grids(run.workdir, run.step)]
    figures = [(s, name, v) for s, values in page.logged for name, v in values.items() if name != "samples"]
    assert sorted(figures) == history(run)
    assert page.settings["config"]["train"]["num_steps"] == 12
    assert page.settings["name"] == "run"
    assert page.finished == 1


def test_a_resumed_run_is_whole_in_both(tmp_path, tensorboard, wandb):
    both = config("TensorBoard", "WeightsAndBiases")
    commands.train_config(both, tmp_path / "run", [Stop()])
    with pytest.raises(RuntimeError, match="fell"):
        commands.train_config(both, tmp_path / "run", [Fall()])
    run = commands.train_config(both, tmp_path / "run")
    assert [board.closed for board in tensorboard] == [1, 1, 1]
    assert [page.finished for page in wandb] == [1, 1, 1]

    # TensorBoard: what was written before counts no more, and the last writer has the whole history.
    assert tensorboard[-1].purge_step == 0
    assert sorted(tensorboard[-1].scalars) == history(run)
    assert [step for step, _, _ in tensorboard[-1].images] == [4, 8, 12]

    # W&B: one page, each figure of the training there once. The timing of repeated steps may be of either time.
    assert len({page.settings["id"] for page in wandb}) == 1
    told = [(s, k, v) for page in wandb for s, values in page.logged for k, v in values.items()]
    lasting = [entry for entry in history(run) if not entry[1].startswith("timing")]
    assert sorted(entry for entry in told if entry[1].startswith(("metrics", "validation"))) == lasting
