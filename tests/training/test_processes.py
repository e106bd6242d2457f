"""Two processes on one machine, one device each, that train together over loopback."""

import csv
import socket

import jax
import numpy as np
import pytest
from test_interruptions import QUICK, arrays, assert_identical, steps_of

from fmd.training import feed as feeds
from tests.helpers import toys

pytestmark = pytest.mark.slow


def free_port():
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return probe.getsockname()[1]


def run_pair(command, workdir, **environment):
    """Runs both processes to their end: [(exit code, output), (exit code, output)]."""
    together = [f"--workdir={workdir}", f"--coordinator=localhost:{free_port()}", "--num_processes=2"]
    pair = [toys.start_fmd(*command, *together, f"--process_id={i}", **environment) for i in (0, 1)]
    outputs = [process.communicate(timeout=200)[0] for process in pair]
    return [(process.returncode, output) for process, output in zip(pair, outputs, strict=True)]


@pytest.fixture(scope="module")
def command(tmp_path_factory):
    return [f"--config={toys.write_config(tmp_path_factory.mktemp('config'), **QUICK)}"]


@pytest.fixture(scope="module")
def pair(command, tmp_path_factory):
    """The folder of a run of two processes, and what both said."""
    workdir = tmp_path_factory.mktemp("runs") / "pair"
    ends = run_pair(command, workdir)
    assert [code for code, _ in ends] == [0, 0], ends
    return workdir, [output for _, output in ends]


def numbers(workdir, name):
    with open(workdir / name) as table:
        return np.array([[float(value) for value in row.values()] for row in csv.DictReader(table)])


def test_two_processes_get_the_loss_curve_of_one(command, pair, tmp_path):
    workdir, _ = pair
    code, output = toys.run_fmd(*command, f"--workdir={tmp_path / 'single'}")
    assert code == 0, output
    for name in ("metrics.csv", "validation.csv"):
        np.testing.assert_allclose(numbers(workdir, name), numbers(tmp_path / "single", name), rtol=1e-4)
    one, two = arrays(tmp_path / "single", "12"), arrays(workdir, "12")
    for key in one:
        np.testing.assert_allclose(two[key], one[key], rtol=1e-3, atol=1e-5, err_msg=key)


def test_only_the_first_process_speaks_and_writes(pair):
    workdir, (first, second) = pair
    assert "done: 12 steps" in first
    assert "training" in first
    assert "done" not in second
    assert "training" not in second
    assert steps_of(workdir / "metrics.jsonl") == [3, 6, 9, 12]


def test_one_that_dies_ends_the_other_and_both_go_on_to_the_same_bits(command, pair, tmp_path):
    workdir = tmp_path / "broken"
    (first, said), (second, _) = run_pair(command, workdir, TOY_SIGNAL="KILL 7", TOY_PROCESS="1")
    assert second == -9
    assert first == 2, said
    assert "another process of this run has ended" in said.splitlines()[-1]
    assert "Traceback" not in said
    ends = run_pair(command, workdir)
    assert [code for code, _ in ends] == [0, 0], ends
    assert "going on from step 4" in ends[0][1]
    assert_identical(pair[0], workdir)


def test_a_signal_to_one_stops_both_at_the_same_step_with_a_checkpoint(command, tmp_path):
    workdir = tmp_path / "stopped"
    ends = run_pair(command, workdir, TOY_SIGNAL="TERM 5", TOY_PROCESS="1")
    assert [code for code, _ in ends] == [0, 0], ends
    assert "stopped and saved at step 7" in ends[0][1]
    assert sorted(p.name for p in (workdir / "checkpoints").iterdir()) == ["4", "7"]


def test_a_refusal_of_the_first_process_is_that_of_all(command, pair):
    ends = run_pair([*command, "--config.train.batch_size=8"], pair[0])
    assert [code for code, _ in ends] == [2, 2], ends
    assert all("train.batch_size: 16 -> 8" in output.splitlines()[-1] for _, output in ends)


@pytest.mark.parametrize("resident", [True, False])
def test_each_process_reads_only_its_part_of_every_batch(monkeypatch, resident):
    config, data = toys.config(data={"source": "toy", "resident": resident}), toys.dataset()
    whole = list(feeds.feed(config, data, 3))
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    parts = []
    for i in (0, 1):
        monkeypatch.setattr(jax, "process_index", lambda i=i: i)
        parts.append(list(feeds.feed(config, data, 3)))
    assert len(whole) == 9
    for both, first, second in zip(whole, *parts, strict=True):
        assert both.keys() == first.keys() == second.keys()
        for key, value in both.items():
            assert first[key].shape[:2] == (1, 8)
            np.testing.assert_array_equal(np.concatenate([first[key], second[key]], axis=1), value)
