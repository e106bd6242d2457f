"""The race against PyTorch: the same steps on both sides, trainings that take turns, and the time to a quality."""

import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

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


def test_pytorch_takes_the_same_steps():
    """Losses, parameters and their average over steps with Muon, from fmd's parameters and fmd's draws."""
    torch = pytest.importorskip("torch")
    from jax_worker import settings_of
    from pytorch_unet import UNet
    from torch_race import Training

    config = toys.config(
        model={"name": "unet", **MODEL}, train={"num_steps": 12, "batch_size": BATCH}, log={"every": 1},
        optimizer={"name": "muon", "learning_rate": 6e-3, "warmup_steps": 0, "weight_decay": 0.0, "clip_norm": 0.5},
        ema={"decays": [0.6], "power_stds": []},
    )  # fmt: skip
    lab = toys.Lab(config, toys.layout("jit", 1))

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


def test_trainings_take_turns(tmp_path):
    """Seconds count in own turns only; a training that fails ends the race, and all others with it."""
    from turns import Runner, take_turns

    script = "import time, pathlib; time.sleep({}); pathlib.Path({!r}, 'run/checkpoints/7').mkdir(parents=True)"

    def runner(name, seconds, code=script):
        (tmp_path / name).mkdir()
        return Runner([sys.executable, "-c", code.format(seconds, str(tmp_path / name))], tmp_path / name)

    short, long = runner("short", 0.4), runner("long", 0.8)
    began = time.monotonic()
    take_turns([short, long], 0.3)
    assert short.reached.keys() == long.reached.keys() == {7}
    assert short.seconds + long.seconds <= time.monotonic() - began + 0.05
    bad, left = runner("bad", 0, "raise SystemExit(3)"), runner("left", 60)
    with pytest.raises(RuntimeError, match=r"see .*bad/log\.txt"):
        take_turns([left, bad], 0.2)
    assert left.process.returncode == -9


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
