"""The golden exponents of arXiv 2312.02696, and averages of any width reconstructed after a run."""

import numpy as np
import pytest

from fmd.checkpoints import power_averages
from fmd.checkpoints.store import Store
from fmd.checkpoints.weights import load_weights
from fmd.config import resolve
from fmd.files import write_json
from fmd.run_info import RunInfo


@pytest.mark.parametrize(("std", "gamma"), [(0.05, 16.9722), (0.10, 6.9372), (0.15, 3.5579)])
def test_golden_exponents(std, gamma):
    found = power_averages.power_exponent(std)
    assert abs(found - gamma) < 5e-5
    assert abs(np.sqrt((found + 1) / ((found + 2) ** 2 * (found + 3))) - std) < 1e-12


def walk(steps):
    """One parameter along a made-up run: a drift with noise."""
    noise = np.random.default_rng(0).normal(size=steps).cumsum() * 0.05
    return np.linspace(0.0, 1.0, steps) ** 0.5 + noise


def tracked(values, std):
    """The average of this width after each step, by its recursion, in float64."""
    gamma, average, found = power_averages.power_exponent(std), 0.0, []
    for n, value in enumerate(values, start=1):
        average = value + (1 - 1 / n) ** (gamma + 1) * (average - value)
        found.append(average)
    return np.array(found)


STEPS, EVERY, STORED = 1000, 50, (0.05, 0.10)


@pytest.mark.parametrize("wanted", [0.06, 0.075, 0.12])
def test_another_width_from_snapshots_is_the_directly_tracked_one(wanted):
    values = walk(STEPS)
    stored = {std: tracked(values, std) for std in STORED}
    snapshots = [
        (step, power_averages.power_exponent(std), {"w": np.float32(average[step - 1])})
        for step in range(EVERY, STEPS + 1, EVERY)
        for std, average in stored.items()
    ]
    found, direct = power_averages.reconstruct(snapshots, STEPS, wanted)["w"], tracked(values, wanted)[-1]
    assert found.dtype == np.float32
    assert abs(found - direct) < 2e-4
    # The stored widths themselves are off by far more, so agreement is not for want of a difference.
    assert min(abs(average[-1] - direct) for average in stored.values()) > 10 * abs(found - direct)


def test_a_stored_width_comes_back_as_it_was():
    average = tracked(walk(100), 0.1)
    found = power_averages.reconstruct([(100, power_averages.power_exponent(0.1), {"w": average[-1]})], 100, 0.1)
    np.testing.assert_allclose(found["w"], average[-1], rtol=1e-6)


def write_info(folder, averages, **ema):
    info = RunInfo(resolve({"ema": ema}), (1, 1, 1), 0, 1, averages, "made up")
    write_json(folder / "config.json", info.to_json())


def test_any_width_is_read_from_the_checkpoints_of_a_run(tmp_path):
    values = walk(STEPS)
    stored = [tracked(values, std) for std in STORED]
    store = Store(tmp_path / "checkpoints", keep_last=1, keep_every=100)
    for step in range(100, STEPS + 1, 100):
        ema = {f"power{i}": {"w": np.full(3, average[step - 1], np.float32)} for i, average in enumerate(stored)}
        store.save(step, ema={"decay0": {"w": np.zeros(3, np.float32)}, **ema}, train={"step": np.int32(step)})
    store.close()
    write_info(tmp_path, ("decay0", "power0", "power1"), power_stds=STORED)

    weights, info = load_weights(tmp_path, "std=0.08")
    assert info.step == STEPS
    np.testing.assert_allclose(weights["w"], tracked(values, 0.08)[-1], atol=1e-3)
    earlier, info = load_weights(tmp_path / "checkpoints" / "500", "std=0.08")
    assert info.step == 500
    np.testing.assert_allclose(earlier["w"], tracked(values, 0.08)[499], atol=5e-3)  # from 5 steps instead of 10
    damaged = tmp_path / "checkpoints" / str(STEPS)
    next(p for p in (damaged / "ema").rglob("*") if p.is_file() and p.stat().st_size).write_bytes(b"damaged")
    older, info = load_weights(tmp_path, "std=0.08")
    assert info.step == STEPS - 100  # the step it is of, not that of the damaged one
    np.testing.assert_allclose(older["w"], tracked(values, 0.08)[STEPS - 101], atol=1e-3)
    for place in (tmp_path, tmp_path / "checkpoints" / "500"):
        with pytest.raises(ValueError, match=r"above 0 and below 0\.288"):
            load_weights(place, "std=0.3")
    for wrong in ("std=0.3", "std=0", "std=wide", "std=nan"):
        with pytest.raises(ValueError, match=r"above 0 and below 0\.288"):
            load_weights(tmp_path / "checkpoints" / "500", wrong)


def test_a_run_without_such_averages_says_how_to_keep_them(tmp_path):
    store = Store(tmp_path / "checkpoints")
    store.save(1, ema={"decay0": {"w": np.zeros(3, np.float32)}}, train={"step": np.int32(1)})
    store.close()
    write_info(tmp_path, ("decay0",), power_stds=())
    for place in (tmp_path, tmp_path / "checkpoints" / "1"):
        with pytest.raises(ValueError, match=r"train with config\.ema\.power_stds"):
            load_weights(place, "std=0.1")


def test_nothing_to_reconstruct_from_is_one_line():
    with pytest.raises(ValueError, match=r"set ema\.power_stds"):
        power_averages.reconstruct([], 10, 0.1)
