"""Runs in processes of their own: killed, stopped, locked, refused; and what they leave behind."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from fmd.checkpoints.weights import read_arrays
from tests.helpers import toys

pytestmark = pytest.mark.slow

QUICK = {"sample": {"guidance": {"name": "cfg", "weight": 1.0}, "solver": "euler", "steps": 2}}


@pytest.fixture(scope="module")
def command(tmp_path_factory):
    """The arguments of a training run, without its workdir."""
    return [f"--config={toys.write_config(tmp_path_factory.mktemp('config'), **QUICK)}"]


@pytest.fixture(scope="module")
def uninterrupted(command, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("runs") / "uninterrupted"
    code, output = toys.run_fmd(*command, f"--workdir={workdir}")
    assert code == 0, output
    return workdir


@pytest.fixture(scope="module")
def killed(command, tmp_path_factory):
    """A run that ended without warning after step 11: past the checkpoint of step 8, lines 9 to 11 in its logs."""
    workdir = tmp_path_factory.mktemp("runs") / "killed"
    code, output = toys.run_fmd(*command, f"--workdir={workdir}", TOY_SIGNAL="KILL 11")
    assert code == -9, output
    assert sorted(p.name for p in (workdir / "checkpoints").iterdir()) == ["4", "8"]
    return workdir


def arrays(workdir: Path, step: str) -> dict[str, np.ndarray]:
    import jax

    return {
        item + jax.tree_util.keystr(path): leaf
        for item in ("ema", "train")
        for path, leaf in jax.tree_util.tree_leaves_with_path(read_arrays(workdir / "checkpoints" / step / item))
    }


def assert_identical(one: Path, other: Path, step: str = "12") -> None:
    a, b = arrays(one, step), arrays(other, step)
    assert a.keys() == b.keys()
    assert len(a) > 30
    assert [key for key in a if a[key].tobytes() != b[key].tobytes()] == []
    for name in ("metrics.csv", "metrics.jsonl", "validation.csv", "validation.jsonl"):
        assert (one / name).read_bytes() == (other / name).read_bytes(), name
    pictures = [p.name for p in sorted((one / "samples").iterdir())]
    assert pictures == [p.name for p in sorted((other / "samples").iterdir())]
    assert len(pictures) == 3
    for name in pictures:
        assert (one / "samples" / name).read_bytes() == (other / "samples" / name).read_bytes(), name


def steps_of(path: Path) -> list[int]:
    return [json.loads(line)["step"] for line in path.read_text().splitlines()]


def test_the_uninterrupted_run_wrote_every_line_once(uninterrupted):
    assert steps_of(uninterrupted / "metrics.jsonl") == [3, 6, 9, 12]
    assert steps_of(uninterrupted / "validation.jsonl") == [4, 8, 12]


def test_a_killed_run_goes_on_to_the_same_bits(command, uninterrupted, killed, tmp_path):
    workdir = shutil.copytree(killed, tmp_path / "run")
    with open(workdir / "metrics.jsonl", "a") as log:
        log.write('{"step": 12, "loss": 0.7')  # a line that was being written
    code, output = toys.run_fmd(*command, f"--workdir={workdir}")
    assert code == 0, output
    assert "going on from step 8" in output
    assert_identical(uninterrupted, workdir)


def test_a_killed_run_with_a_damaged_checkpoint_uses_the_one_before(command, uninterrupted, killed, tmp_path):
    workdir = shutil.copytree(killed, tmp_path / "run")
    largest = max((workdir / "checkpoints" / "8").rglob("*"), key=lambda p: p.stat().st_size if p.is_file() else 0)
    largest.write_bytes(largest.read_bytes()[:-5])
    code, output = toys.run_fmd(*command, f"--workdir={workdir}")
    assert code == 0, output
    assert "checkpoint 8 is damaged" in output
    assert "going on from step 4" in output
    assert_identical(uninterrupted, workdir)


def test_a_signal_saves_and_ends_and_the_run_goes_on_to_the_same_bits(command, uninterrupted, tmp_path):
    workdir = tmp_path / "run"
    code, output = toys.run_fmd(*command, f"--workdir={workdir}", TOY_SIGNAL="TERM 6")
    assert code == 0, output
    assert "stopped and saved at step 7" in output
    code, output = toys.run_fmd(*command, f"--workdir={workdir}")
    assert code == 0, output
    assert "going on from step 7" in output
    assert_identical(uninterrupted, workdir)


def test_a_second_run_in_the_same_folder_is_refused(command, killed, tmp_path):
    """And the lock of the run that was killed did not keep others out."""
    from fmd.files import folder_lock

    workdir = shutil.copytree(killed, tmp_path / "run")
    before = sorted((p.relative_to(workdir), p.stat().st_mtime_ns) for p in workdir.rglob("*"))
    with folder_lock(workdir):
        code, output = toys.run_fmd(*command, f"--workdir={workdir}")
        assert code == 2, output
        assert "is in use by process" in output.splitlines()[-1]
    after = sorted((p.relative_to(workdir), p.stat().st_mtime_ns) for p in workdir.rglob("*") if p.name != ".lock")
    assert [entry for entry in before if entry[0].name != ".lock"] == after


def test_another_config_is_refused_with_its_differences(command, killed, tmp_path):
    workdir = shutil.copytree(killed, tmp_path / "run")
    code, output = toys.run_fmd(
        *command, f"--workdir={workdir}", "--config.optimizer.learning_rate=0.5", "--config.train.batch_size=8",
        "--config.sample.steps=3",
    )  # fmt: skip
    assert code == 2, output
    line = output.splitlines()[-1]
    assert "optimizer.learning_rate: 0.01 -> 0.5" in line
    assert "train.batch_size: 16 -> 8" in line
    assert "sample" not in line  # how to sample may change
