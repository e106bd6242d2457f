"""Layouts, placement, and batches over devices."""

import jax
import numpy as np
import pytest

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
