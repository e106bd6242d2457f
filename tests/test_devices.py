"""Layouts, placement, and what several processes agree on (alone here; together in training/test_processes.py)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import P

from fmd import devices


def test_auto_is_jit_on_one_device_and_a_mesh_on_several():
    assert devices.make_layout(devices=jax.devices()[:1]).mode == "jit"
    layout = devices.make_layout()
    assert (layout.mode, layout.mesh.shape) == ("mesh", {"data": 8, "fsdp": 1})
    assert devices.make_layout("jit").mesh.size == 1


@pytest.mark.parametrize(("mode", "fsdp", "message"), [
    ("tpu", 1, "choose one of auto, jit, pmap, mesh"),
    ("mesh", 3, "a divisor of the number of devices"),
    ("mesh", 0, "a divisor of the number of devices"),
    ("pmap", 2, 'use mode "mesh"'),
    ("jit", 2, 'use mode "mesh"'),
])  # fmt: skip
def test_layouts_that_make_no_sense_are_refused(mode, fsdp, message):
    with pytest.raises(ValueError, match=message):
        devices.make_layout(mode, fsdp=fsdp)


@pytest.mark.parametrize("mode", ["pmap", "jit"])
def test_several_processes_need_a_mesh(monkeypatch, mode):
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    with pytest.raises(ValueError, match="use mesh"):
        devices.make_layout(mode)


def test_large_arrays_are_split_along_their_longest_divisible_axis():
    layout = devices.make_layout("mesh", fsdp=4)
    shapes = {"wide": (64, 512), "tall": (3, 3, 512, 64), "odd": (513, 511), "small": (64,)}
    tree = {name: jax.ShapeDtypeStruct(shape, jnp.float32) for name, shape in shapes.items()}
    specs = jax.tree.map(lambda s: s.spec, devices.state_shardings(layout, tree))
    assert specs == {"wide": P(None, "fsdp"), "tall": P(None, None, "fsdp"), "odd": P(), "small": P()}
    plain = devices.state_shardings(devices.make_layout("mesh"), tree)
    assert all(sharding.spec == P() for sharding in jax.tree.leaves(plain))


@pytest.mark.parametrize("mode", ["jit", "pmap", "mesh"])
def test_a_feed_keeps_its_order_over_the_devices(mode):
    layout = devices.make_layout(mode)
    placed = devices.place_feed(layout, {"rows": np.arange(32, dtype=np.int32).reshape(2, 16)})["rows"]
    np.testing.assert_array_equal(np.asarray(placed).reshape(2, 16), np.arange(32).reshape(2, 16))
    if mode == "mesh":
        parts = [np.asarray(shard.data) for shard in placed.addressable_shards]
        np.testing.assert_array_equal(np.concatenate(parts, axis=1), np.arange(32).reshape(2, 16))
        assert {part.shape for part in parts} == {(2, 2)}


def test_replicated_and_split_arrays():
    layout = devices.make_layout("mesh", fsdp=2)
    tree = devices.replicate(layout, {"a": np.arange(3.0)})
    assert tree["a"].sharding.is_fully_replicated
    split = devices.split_batch(layout, np.arange(16))
    assert {shard.data.shape for shard in split.addressable_shards} == {(2,)}
    np.testing.assert_array_equal(split, np.arange(16))


def test_initialize_needs_all_three_values_or_none(monkeypatch):
    monkeypatch.delenv("SLURM_NTASKS", raising=False)
    monkeypatch.delenv("TPU_WORKER_HOSTNAMES", raising=False)
    for given in [("localhost:1", None, None), (None, 2, None), ("localhost:1", 2, None)]:
        with pytest.raises(ValueError, match="belong together"):
            devices.initialize(*given)
    devices.initialize()  # alone


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
    devices.initialize()
    in_sbatch_without_srun = environment == {"SLURM_NTASKS": "4"}
    assert calls == ([alone] if environment and not in_sbatch_without_srun else [])
    devices.initialize("host:1", 2, 1)
    assert calls[-1] == (("host:1", 2, 1), {})
    devices.initialize("auto")
    assert calls[-1] == alone
    with pytest.raises(ValueError, match="belong together"):
        devices.initialize("auto", 2)


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
    assert devices.local_devices() == expected


def test_a_few_sizes_serve_all_counts():
    sizes = {devices.few_sizes(count) for count in range(1, 257)}
    assert sorted(sizes) == [1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256]
    assert all(devices.few_sizes(count) >= count for count in range(1, 257))


def test_parts_are_mapped_and_joined_whatever_their_size():
    layout, shapes = devices.make_layout("mesh"), []

    def double(x, parts):
        shapes.append(x.shape)
        return {"x": 2 * x, "y": parts["y"] + 1}

    x, y = np.arange(21.0), np.arange(42).reshape(21, 2)
    for size in (8, 16, 64):
        found = devices.map_batches(layout, jax.jit(double), size, x, {"y": y})
        np.testing.assert_array_equal(found["x"], 2 * x)
        np.testing.assert_array_equal(found["y"], y + 1)
    assert shapes == [(8,), (16,), (24,)]  # one trace each; 21 are filled up to 24


@pytest.mark.parametrize(("stop_at", "kept"), [(1, None), (2, 8), (3, 16)])
def test_an_interrupt_gives_what_was_finished(stop_at, kept):
    calls = []

    def double(x):
        calls.append(1)
        if len(calls) == stop_at:
            raise KeyboardInterrupt
        return 2 * x

    with pytest.raises(KeyboardInterrupt) as raised:
        devices.map_batches(devices.make_layout("jit"), double, 8, np.arange(21.0))
    assert raised.type is devices.Interrupted
    np.testing.assert_array_equal(raised.value.finished, kept and 2 * np.arange(kept))


def test_one_process_agrees_with_itself():
    assert devices.share("good") == "good"
    done = []
    devices.on_main(lambda: done.append(1))
    assert done == [1]
    with pytest.raises(FileExistsError, match="taken"):
        devices.on_main(lambda: (_ for _ in ()).throw(FileExistsError("taken")))
    vote = devices.Vote(devices.make_layout())
    assert [vote(False), vote(True), vote(False)] == [False, True, False]


def test_what_the_main_process_raised_is_raised_by_the_others(monkeypatch):
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    monkeypatch.setattr(devices, "share", lambda text: "the folder is taken")
    with pytest.raises(ValueError, match="the folder is taken"):
        devices.on_main(lambda: pytest.fail("only the main process acts"))


def test_an_error_of_ones_own_is_not_blamed_on_another_process(monkeypatch):
    def fail(text):
        with devices.clear_message_when_another_process_ends():
            raise jax.errors.JaxRuntimeError(text)

    with pytest.raises(jax.errors.JaxRuntimeError):
        fail("INTERNAL: Gloo all-reduce failed")  # alone there is no other
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    with pytest.raises(jax.errors.JaxRuntimeError, match="out of memory"):
        fail("RESOURCE_EXHAUSTED: out of memory")
    with pytest.raises(RuntimeError, match="start all 2 again with the same command"):
        fail("INTERNAL: Gloo all-reduce failed: Connection reset by peer")
