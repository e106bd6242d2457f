"""The bar in a terminal, a pipe and a notebook: what it shows, and that it is closed after an error, too."""

import io
import os
import sys
from contextlib import ExitStack
from types import SimpleNamespace

import pytest

from fmd.training.callbacks import progress
from fmd.training.run import Run
from tests.helpers import toys


class Terminal(io.StringIO):
    def isatty(self):
        return True

    def fileno(self):
        return 2


def a_run(cleanup, *, steps=20, at=0):
    run = object.__new__(Run)  # of which only these are looked at
    run.config, run.step, run.cleanup = toys.config(train={"num_steps": steps}), at, cleanup
    run.logs = {"metrics": SimpleNamespace(lines=[]), "timing": SimpleNamespace(lines=[])}
    return run


def go(run, steps):
    bar = progress.Progress()
    bar.on_train_start(run)
    for _ in range(steps):
        run.step += 1
        if run.step % 5 == 0:
            run.logs["metrics"].lines.append({"step": run.step, "loss": 0.25 if run.step < 20 else None})
            run.logs["timing"].lines.append({"step": run.step, "images_per_second": 1234.5})
        bar.on_step_end(run)


def test_in_a_pipe_each_refresh_is_a_line(monkeypatch):
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    with ExitStack() as cleanup:
        go(a_run(cleanup, at=5), 12)
    text = sys.stderr.getvalue()
    assert "\r" not in text
    assert text.endswith("\n")
    lines = text.strip().splitlines()
    assert len(lines) == 2  # how it began and, from the closing, how it ended: nothing between within 30 s
    assert " 5/20 " in lines[0]
    assert " 17/20 " in lines[1]
    assert "loss 0.2500, 1234 images/s" in lines[1]


def test_a_line_without_a_loss_can_be_shown(monkeypatch):
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    with ExitStack() as cleanup:
        go(a_run(cleanup), 20)
    assert ", 1234 images/s]" in sys.stderr.getvalue()


def test_after_an_error_the_bar_is_closed_and_the_next_line_free(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setattr(os, "get_terminal_size", lambda *_: os.terminal_size((80, 24)))

    def fall(cleanup):
        go(a_run(cleanup), 7)
        raise RuntimeError("fell")

    with pytest.raises(RuntimeError), ExitStack() as cleanup:
        fall(cleanup)
    assert sys.stderr.getvalue().endswith("\n")
    assert " 7/20 " in sys.stderr.getvalue().rpartition("\r")[2]


def test_settings_where_it_is_shown(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setattr(os, "get_terminal_size", lambda *_: os.terminal_size((80, 24)))
    assert progress.bar_settings() == {}
    monkeypatch.setattr(os, "get_terminal_size", lambda *_: os.terminal_size((0, 0)))
    assert progress.bar_settings() == {"ncols": 100, "nrows": 24}
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    assert progress.bar_settings()["mininterval"] == 30
    monkeypatch.setitem(sys.modules, "ipykernel", SimpleNamespace())
    assert progress.bar_settings() == {}
