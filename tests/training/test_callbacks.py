"""The files that a run leaves: complete, in the right order, and the same after any crash."""

import csv
import json
import math
import pathlib

import jax
import numpy as np
import pytest

from fmd import commands
from fmd.checkpoints.spent import spent
from fmd.files import read_json_lines
from fmd.training import callbacks, timing, trainer
from fmd.training.callbacks import Callback
from fmd.training.callbacks.progress import Progress
from fmd.training.callbacks.report import HtmlReport
from fmd.training.lines import JsonLines, LineLog
from tests.helpers import toys

SAME = {"parallel": {"mode": "jit"}, "log": {"every": 2}}  # as `toy_run`


def same_files(workdir: pathlib.Path, expected: pathlib.Path) -> None:
    """The logs and grids of both are the same bytes, and neither has a file that the other lacks."""
    patterns = ("metrics.*", "validation.*", "samples/*")
    names = sorted(path.relative_to(expected) for pattern in patterns for path in expected.glob(pattern))
    assert names == sorted(path.relative_to(workdir) for pattern in patterns for path in workdir.glob(pattern))
    for name in names:
        assert (workdir / name).read_bytes() == (expected / name).read_bytes(), name


def steps_of(path: pathlib.Path) -> list[int]:
    return [line["step"] for line in read_json_lines(path)]


# --- what is written ---


def test_lines_figures_and_grids_are_there_at_their_steps_and_at_the_end(toy_run):
    assert steps_of(toy_run.workdir / "metrics.jsonl") == [2, 4, 6, 8, 10, 12]
    assert steps_of(toy_run.workdir / "validation.jsonl") == [4, 8, 12]
    grids = [path.name for _, path in callbacks.saved_grids(toy_run.workdir, toy_run.step)]
    assert grids == ["step_00000004.png", "step_00000008.png", "step_00000012.png"]


def test_a_grid_of_a_later_step_from_before_a_kill_does_not_count(toy_run):
    assert [step for step, _ in callbacks.saved_grids(toy_run.workdir, 8)] == [4, 8]


def test_table_and_json_say_the_same(toy_run):
    for name in ("metrics", "validation"):
        with open(toy_run.workdir / f"{name}.csv", newline="") as file:
            table = list(csv.DictReader(file))
        lines = read_json_lines(toy_run.workdir / f"{name}.jsonl")
        as_text = [{key: "" if value is None else str(value) for key, value in line.items()} for line in lines]
        assert table == as_text
        assert toy_run.logs[name].lines == lines


def test_the_last_line_describes_the_last_state(toy_run):
    line = toy_run.logs["metrics"].lines[-1]
    leaves = jax.tree.leaves(jax.device_get(toy_run.state.params))
    norm = math.sqrt(sum(np.sum(np.square(leaf, dtype=np.float64)) for leaf in leaves))
    assert line["param_norm"] == pytest.approx(norm, rel=1e-6)
    assert line["learning_rate"] == pytest.approx(float(toy_run.recipe.learning_rate(11)), rel=1e-6)
    window = jax.device_get(toy_run.state.window)
    assert line["loss"] == pytest.approx(float(window.loss) / 2, rel=1e-6)
    assert line["grad_norm"] == pytest.approx(float(window.grad_norm) / 2, rel=1e-6)


def test_intervals_of_zero_mean_only_at_the_end(tmp_path):
    commands.train_config(
        toys.config(log={"eval_every": 0, "samples_every": 0}, parallel={"mode": "jit"}), tmp_path / "run"
    )
    assert steps_of(tmp_path / "run" / "validation.jsonl") == [12]
    assert [path.name for path in (tmp_path / "run" / "samples").iterdir()] == ["step_00000012.png"]


@pytest.mark.parametrize("parallel", [{"mode": "pmap"}, {"mode": "mesh", "fsdp": 8}])
def test_the_line_is_the_same_on_several_devices(toy_run, tmp_path, parallel):
    run = trainer.train(
        toys.config(parallel=parallel, log={"every": 2}), tmp_path / "run", toys.dataset(), [callbacks.Log()]
    )
    for line, expected in zip(run.logs["metrics"].lines, toy_run.logs["metrics"].lines, strict=True):
        assert line == pytest.approx(expected, rel=1e-4)


# --- clock and memory ---


def test_the_clock_is_in_the_timing_log_only(toy_run):
    lines = read_json_lines(toy_run.workdir / "timing.jsonl")
    assert [line["step"] for line in lines] == [2, 4, 6, 8, 10, 12, 12]
    for line in lines[:-1]:
        assert line["images_per_second"] == pytest.approx(16 / line["seconds_per_step"], rel=1e-3)
        assert line["memory_bytes"] is None  # the CPU does not tell
        assert line["flops"] == pytest.approx(2 * toy_run.cost.step, rel=1e-5)
        assert (line["devices"], line["utilisation"]) == (1, None)  # of a CPU no peak is known
    # Nearly: there is no gradient for the input of the first convolution.
    assert 2 < toy_run.cost.step / (16 * toy_run.cost.forward) < 3
    found = spent(toy_run.workdir, 8)
    assert found["flops"] == pytest.approx(8 * toy_run.cost.step, rel=1e-5)
    assert found["device_hours"] == pytest.approx(sum(line["seconds"] for line in lines[:4]) / 3600, rel=1e-3)
    assert found["images_per_second"] == np.median([line["images_per_second"] for line in lines[:4]])
    assert "utilisation" not in found
    assert spent(toy_run.workdir / "checkpoints", 8) is None
    for what in ("evaluation", "sampling", "checkpoint"):
        total = sum(line.get(f"{what}_seconds", 0) for line in lines)
        assert total == pytest.approx(toy_run.seconds[what], abs=1e-4)
        assert total > 0
    assert not any("second" in key for line in toy_run.logs["metrics"].lines for key in line)


def test_memory_is_that_of_the_fullest_device(monkeypatch):
    class Device:
        def __init__(self, stats):
            self.memory_stats = lambda: stats

    devices = [Device({"bytes_in_use": 5, "peak_bytes_in_use": 9}), Device({"bytes_in_use": 7}), Device(None)]
    monkeypatch.setattr(jax, "local_devices", lambda: devices)
    assert timing.device_memory() == {"memory_bytes": 7, "peak_memory_bytes": 9}


# --- crashes ---

STEP = 8  # where a line, figures, a grid and a checkpoint are due
AFTER = [
    *[(kind, "on_step_end") for kind in (callbacks.Log, callbacks.Evaluate, callbacks.Samples, Progress)],
    *[(kind, "on_step_end") for kind in (callbacks.Checkpoints, HtmlReport)],
    (Progress, "on_train_start"),
    (Progress, "on_train_end"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "hook"), AFTER, ids=[f"{kind.__name__}.{hook}" for kind, hook in AFTER])
def test_a_crash_after_any_hook_leaves_no_checkpoint_ahead_of_the_logs(toy_run, tmp_path, monkeypatch, kind, hook):
    original = getattr(kind, hook)

    def crash(self, run):
        original(self, run)
        if hook != "on_step_end" or run.step == STEP:
            raise RuntimeError("the disk fell out")

    workdir, config = tmp_path / "run", toys.config(**SAME)
    with monkeypatch.context() as patch:
        patch.setattr(kind, hook, crash)
        with pytest.raises(RuntimeError, match="fell out") as raised:
            commands.train_config(config, workdir)
    assert any(f"{kind.__name__}.{hook}" in note for note in raised.value.__notes__)

    saved = [int(path.name) for path in (workdir / "checkpoints").iterdir()]
    ahead = (callbacks.Checkpoints, HtmlReport)
    assert (STEP in saved) == (hook == "on_train_end" or (hook == "on_step_end" and kind in ahead))
    for step in saved:
        for log, every in (("metrics", 2), ("validation", 4)):
            assert set(range(every, step + 1, every)) <= set(steps_of(workdir / f"{log}.jsonl"))
        assert (workdir / "samples" / f"step_{step:08d}.png").exists()

    commands.train_config(config, workdir)
    same_files(workdir, toy_run.workdir)
    assert (workdir / "report.html").exists()


@pytest.mark.slow
def test_a_callback_of_ones_own_that_raises_is_named(tmp_path):
    """As a user meets it: the fault's own text and whose it was, then the run goes on once it is fixed."""
    (tmp_path / "mine.py").write_text(
        "import os\nfrom fmd.training.callbacks import Callback\n\n\nclass Fragile(Callback):\n"
        "    def on_step_end(self, run):\n        if run.step == 6 and 'FIXED' not in os.environ:\n"
        "            raise RuntimeError('my own mistake')\n"
    )
    values = toys.settings(parallel={"mode": "jit"}, log={"callbacks": ["mine:Fragile"]})
    (tmp_path / "fragile.py").write_text(
        f"from ml_collections import ConfigDict\n\n\ndef get_config():\n    return ConfigDict({values!r})\n"
    )
    path = f"{tmp_path}:{pathlib.Path(toys.__file__).parent}"
    command = (f"--config={tmp_path / 'fragile.py'}", f"--workdir={tmp_path / 'run'}")
    code, said = toys.run_fmd(*command, PYTHONPATH=path)
    assert code == 1
    assert "my own mistake" in said
    assert "raised by Fragile.on_step_end at step 6" in said
    assert [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()] == ["4"]
    code, said = toys.run_fmd(*command, PYTHONPATH=path, FIXED="1")
    assert code == 0, said
    assert "going on from step 4" in said
    assert steps_of(tmp_path / "run" / "metrics.jsonl") == [3, 6, 9, 12]


# --- the files of a log ---


def test_a_log_opened_again_drops_what_will_come_again(tmp_path):
    log = LineLog(tmp_path / "log", after=0)
    for step in (1, 2, 3):
        log.append({"step": step, "loss": step / 8})
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    (tmp_path / "log.jsonl").write_bytes(before["log.jsonl"] + b'{"step": 4, "lo')  # cut short by a kill

    log = LineLog(tmp_path / "log", after=2)
    assert [line["step"] for line in log.lines] == [1, 2]
    log.append({"step": 3, "loss": 3 / 8})
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_table_lost_by_a_kill_comes_back(tmp_path):
    LineLog(tmp_path / "log", after=0).append({"step": 1, "loss": 0.5})
    before = (tmp_path / "log.csv").read_bytes()
    (tmp_path / "log.csv").unlink()
    LineLog(tmp_path / "log", after=1)
    assert (tmp_path / "log.csv").read_bytes() == before


def test_a_new_name_becomes_a_column_and_a_number_without_end_becomes_null(tmp_path):
    log = LineLog(tmp_path / "log", after=0)
    log.append({"step": 1, "loss": 0.5})
    log.append({"step": 2, "fid": math.inf, "loss": math.nan})
    log.append({"step": 3, "fid": 2.5})
    assert (tmp_path / "log.csv").read_text().splitlines() == ["step,loss,fid", "1,0.5,", "2,,", "3,,2.5"]
    assert read_json_lines(tmp_path / "log.jsonl")[1] == {"step": 2, "fid": None, "loss": None}


def test_a_log_is_never_seen_half_rewritten(tmp_path, monkeypatch):
    path = tmp_path / "log.jsonl"
    JsonLines(path, after=0).append({"step": 1})
    monkeypatch.setattr(pathlib.Path, "write_text", lambda *_: (_ for _ in ()).throw(OSError("no space left")))
    with pytest.raises(OSError, match="no space"):
        JsonLines(path, after=1)
    assert json.loads(path.read_text()) == {"step": 1}


# --- loading ---


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("nowhere:Thing", "No module named 'nowhere'"),
        ("math:Thing", "has no attribute 'Thing'"),
        ("math", "is not package.module:Class"),
        ("math:pi", "has no on_train_start; make it a subclass of fmd.training.callbacks.Callback"),
    ],
)
def test_what_is_no_callback_is_refused(name, expected):
    with pytest.raises(ValueError, match=r"config\.log\.callbacks") as raised:
        callbacks.load([name])
    assert expected in str(raised.value)


def test_an_error_in_a_constructor_is_not_taken_for_a_wrong_name(monkeypatch):
    class Picky(Callback):
        def __init__(self):
            raise ValueError("I need a GPU")

    monkeypatch.setattr(toys, "Picky", Picky, raising=False)
    with pytest.raises(ValueError, match=r"^I need a GPU$"):
        callbacks.load(["tests.helpers.toys:Picky"])
