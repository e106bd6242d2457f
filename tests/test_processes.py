"""Processes of a run, alone here; together in training/test_processes.py."""

import os
import platform
from pathlib import Path

import jax
import pytest

from fmd import devices, processes


def test_initialize_needs_all_three_values_or_none(monkeypatch):
    monkeypatch.delenv("SLURM_NTASKS", raising=False)
    monkeypatch.delenv("TPU_WORKER_HOSTNAMES", raising=False)
    for given in [("localhost:1", None, None), (None, 2, None), ("localhost:1", 2, None)]:
        with pytest.raises(ValueError, match="belong together"):
            processes.initialize(*given)
    processes.initialize()  # alone


SRUN = {"SLURM_NTASKS": "4", "SLURM_STEP_NODELIST": "node[1-2]"}


@pytest.mark.parametrize("environment", [SRUN, {"SLURM_NTASKS": "4"}, {"TPU_WORKER_HOSTNAMES": "a,b"}, {}])
def test_several_tasks_are_recognised_from_the_environment(monkeypatch, environment):
    for key in ("SLURM_NTASKS", "SLURM_STEP_NODELIST", "TPU_WORKER_HOSTNAMES"):
        monkeypatch.delenv(key, raising=False)
    for key, value in environment.items():
        monkeypatch.setenv(key, value)
    calls = []
    monkeypatch.setattr(jax.distributed, "initialize", lambda *args, **devices: calls.append((args, devices)))
    alone = ((), {"local_device_ids": None})
    processes.initialize()
    in_sbatch_without_srun = environment == {"SLURM_NTASKS": "4"}
    assert calls == ([alone] if environment and not in_sbatch_without_srun else [])
    processes.initialize("host:1", 2, 1)
    assert calls[-1] == (("host:1", 2, 1), {})
    processes.initialize("auto")
    assert calls[-1] == alone
    with pytest.raises(ValueError, match="belong together"):
        processes.initialize("auto", 2)


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"SLURM_STEP_TASKS_PER_NODE": "1(x2)", "CUDA_VISIBLE_DEVICES": "0,1,2,3"}, [0, 1, 2, 3]),
        ({"SLURM_STEP_TASKS_PER_NODE": "1", "SLURM_GPUS_ON_NODE": "8"}, list(range(8))),
        ({"SLURM_STEP_TASKS_PER_NODE": "4(x2)", "CUDA_VISIBLE_DEVICES": "0,1,2,3"}, None),  # one each, JAX's way
        ({"SLURM_STEP_TASKS_PER_NODE": "1", "CUDA_VISIBLE_DEVICES": "2"}, None),
        ({}, None),
    ],
)
def test_the_only_task_of_a_node_uses_all_its_gpus(monkeypatch, environment, expected):
    for key in ("SLURM_STEP_TASKS_PER_NODE", "SLURM_GPUS_ON_NODE", "CUDA_VISIBLE_DEVICES"):
        monkeypatch.delenv(key, raising=False)
    for key, value in environment.items():
        monkeypatch.setenv(key, value)
    assert processes.local_devices() == expected


def test_one_process_agrees_with_itself():
    assert processes.share("good") == "good"
    done = []
    processes.on_main(lambda: done.append(1))
    assert done == [1]
    with pytest.raises(FileExistsError, match="taken"):
        processes.on_main(lambda: (_ for _ in ()).throw(FileExistsError("taken")))
    vote = devices.Vote(devices.make_layout())
    assert [vote(False), vote(True), vote(False)] == [False, True, False]


def test_what_the_main_process_raised_is_raised_by_the_others(monkeypatch):
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    monkeypatch.setattr(processes, "share", lambda text: "the folder is taken")
    with pytest.raises(ValueError, match="the folder is taken"):
        processes.on_main(lambda: pytest.fail("only the main process acts"))


def test_an_error_of_ones_own_is_not_blamed_on_another_process(monkeypatch):
    def fail(text):
        with processes.clear_message_when_another_process_ends():
            raise jax.errors.JaxRuntimeError(text)

    with pytest.raises(jax.errors.JaxRuntimeError):
        fail("INTERNAL: Gloo all-reduce failed")  # alone there is no other
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    with pytest.raises(jax.errors.JaxRuntimeError, match="out of memory"):
        fail("RESOURCE_EXHAUSTED: out of memory")
    with pytest.raises(RuntimeError, match="start all 2 again with the same command"):
        fail("INTERNAL: Gloo all-reduce failed: Connection reset by peer")


@pytest.mark.skipif("glibc" not in platform.libc_ver(), reason="another allocator")
def test_freed_memory_goes_back_to_the_system():
    def resident():
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20

    blocks = [b"x" * 60_000 for _ in range(2000)]  # 114 MiB in pieces that the allocator keeps
    del blocks[:-1]  # the last one holds the end of the heap
    before = resident()
    processes.give_back_memory()
    assert resident() < before - 50
