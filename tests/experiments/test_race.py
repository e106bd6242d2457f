"""The race against PyTorch: the same steps on both sides, trainings that take turns, and the time to a quality."""

import json
import sys
import time
from itertools import pairwise
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fmd.data import ImageDataset, Split
from fmd.math.pixels import to_unit
from fmd.randomness import step_rng
from tests.helpers import toys

BENCHMARKS = str(Path(__file__).parents[2] / "experiments" / "benchmarks")
MODEL = {"base_channels": 12, "channel_multipliers": [1, 2], "num_res_blocks": 1, "patch_size": 2, "embedding_dim": 16}
STEPS, BATCH = 8, 16


@pytest.fixture(autouse=True, scope="module")
def on_the_path():
    sys.path.insert(0, BENCHMARKS)
    yield
    sys.path.remove(BENCHMARKS)


@pytest.mark.parametrize("margin", [0.0, 0.3])
def test_pytorch_takes_the_same_steps(margin):
    """Losses, parameters and their average over steps with Muon, from fmd's parameters and fmd's draws."""
    torch = pytest.importorskip("torch")
    from jax_worker import settings_of
    from pytorch_unet import UNet
    from torch_race import Training

    config = toys.config(
        model={"name": "unet", **MODEL}, train={"num_steps": 12, "batch_size": BATCH}, log={"every": 1},
        optimizer={"name": "muon", "learning_rate": 6e-3, "warmup_steps": 0, "weight_decay": 0.0, "clip_norm": 0.5},
        ema={"decays": [0.6], "power_stds": []}, method={"name": "flow_matching", "margin": margin},
    )  # fmt: skip
    shades = toys.dataset().train
    black = np.where(shades.y[:, None, None, None] == 0, np.uint8(0), shades.images)  # where a margin counts
    data = ImageDataset("black", Split(black, shades.y), toys.dataset().test, toys.CLASSES, "made up by the tests")
    lab = toys.Lab(config, toys.layout("jit", 1), data)

    def in_torch(params):
        network = UNet(lab.data.image_shape, num_classes=toys.CLASSES, **MODEL)
        network.load_flax(jax.device_get(params))
        return network

    state, index = lab.start(), jnp.arange(BATCH)
    network = in_torch(state.params)
    other = Training(settings_of(config, lab.data.image_shape), network, network)
    for step, feed in zip(range(STEPS), lab.feed(), strict=False):
        rng, rows = step_rng(config.seed, jnp.int32(step), index, BATCH), np.asarray(feed["rows"][0])
        train = lab.data.train
        drawn = lab.recipe.method.draw(rng, to_unit(jnp.asarray(train.images[rows])), jnp.asarray(train.y[rows]))
        state, report = lab.program(state, lab.resident, feed)
        x1, x0 = (torch.tensor(np.asarray(x)).permute(0, 3, 1, 2) for x in (drawn.x1, drawn.x0))
        y = torch.tensor(np.where(drawn.untold, toys.CLASSES, drawn.y), dtype=torch.long)
        loss = other.step(x1, y, torch.tensor(np.asarray(drawn.t)), x0, float(lab.recipe.learning_rate(step)))
        np.testing.assert_allclose(loss.item(), float(report.window.loss), rtol=1e-4)
    assert float(report.window.grad_norm) > config.optimizer.clip_norm
    for params, found in ((state.params, other.parameters), (state.ema["decay0"], other.average)):
        for expected, got in zip(in_torch(params).parameters(), found, strict=True):
            torch.testing.assert_close(got, expected, rtol=1e-3, atol=1e-4)


TRAINING = """
import pathlib, time
for _ in range(40):
    time.sleep(0.01)
    with pathlib.Path({folder!r}).with_name("both").open("a") as log:
        log.write({name!r})
pathlib.Path({folder!r}, "run", "checkpoints", "7").mkdir(parents=True)
"""


def test_trainings_take_turns(tmp_path, capsys):
    """One waits while the other runs, and seconds count in own turns; one that fails does not end the others."""
    from turns import Runner, take_turns

    def runner(name, code=TRAINING):
        folder = tmp_path / name
        folder.mkdir()
        return Runner([sys.executable, "-c", code.format(folder=str(folder), name=name)], folder)

    a, b, began = runner("a"), runner("b"), time.monotonic()
    take_turns([a, b], 0.25)
    elapsed = time.monotonic() - began
    log = (tmp_path / "both").read_text()
    assert sum(one != other for one, other in pairwise(log)) <= elapsed / 0.25 + 1
    assert len(log) == 80
    assert a.reached.keys() == b.reached.keys() == {7}
    assert a.seconds + b.seconds <= elapsed
    assert json.loads((tmp_path / "a" / "times.json").read_text())["end"] == a.seconds
    take_turns([runner("bad", "raise SystemExit(3)"), runner("good")], 0.25)
    assert [line for line in capsys.readouterr().out.splitlines() if "failed after" in line and "bad/log.txt" in line]
    assert (tmp_path / "good" / "times.json").exists()
    assert not (tmp_path / "bad" / "times.json").exists()


def test_trainings_end_with_the_race(tmp_path):
    from turns import Runner, take_turns

    class Interrupted(Runner):
        def turn(self, seconds):
            raise KeyboardInterrupt

    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    left = Runner([sys.executable, "-c", "import time; time.sleep(60)"], tmp_path)
    with pytest.raises(KeyboardInterrupt):
        take_turns([left, Interrupted([], tmp_path)], 0.2)
    assert left.process.returncode == -9


def test_all_draw_from_the_same_noise(tmp_path, monkeypatch):
    import race

    orders, taken = race.Race(tmp_path, 1, {}, "python", 20, {"shape": (8, 8, 1)}, ()), []

    def torch_draws(command, check):
        taken.append(np.load(json.loads(Path(command[-1]).read_text())["noise"]))

    monkeypatch.setattr(race.fmd, "load", lambda path: lambda labels, noise: taken.append(noise) or noise)
    monkeypatch.setattr(race.subprocess, "run", torch_draws)
    for seed, name in [(1, "fmd"), (1, "eager"), (2, "fmd")]:
        orders.folder(name, seed).mkdir(parents=True)
        orders.draw(name, seed, [5])
    ours, theirs, other = taken
    assert ours.shape == (20, 8, 8, 1)
    np.testing.assert_array_equal(ours, theirs)
    assert abs(np.corrcoef(ours.ravel(), other.ravel())[0, 1]) < 0.2


def test_a_training_that_failed_is_counted_and_not_judged(tmp_path):
    import race

    orders = race.Race(tmp_path, 1, {}, "", 0, {}, ())
    assert race.judge(orders, "eager", 1, None) == []
    way = [{"step": 1, "seconds": 60.0, "fid": 0.9, "accuracy": 0.99}]
    fmd, eager = race.show({"fmd": {1: way, 2: []}, "eager": {1: []}}, race.torchcfm()).splitlines()[-3:-1]
    assert fmd.count("1.0, 1 of 2") == 2
    assert "failed" in eager


def test_time_to_a_quality():
    import race

    way = [{"step": s, "seconds": 60.0 * s, "fid": fid, "accuracy": accuracy}
           for s, fid, accuracy in [(1, 0.9, 0.97), (2, 1.2, 0.99), (3, 1.0, 0.985), (4, 0.5, 0.999)]]  # fmt: skip
    assert race.seconds_to(way, 1.0, 0.985) == 180.0
    assert race.seconds_to(way, 0.4, 0.985) is None
    assert race.in_minutes([120.0, None, 60.0]) == "1.5 (1.0 to 2.0), 2 of 3"
    assert race.in_minutes([None]) == "-"
    shown = race.show({"fmd": {1: way, 2: way[:3]}}, race.torchcfm())
    assert "3.0 (3.0 to 3.0)" in shown
    assert "torchcfm as it comes" in shown
