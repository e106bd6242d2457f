"""Each file here is a user's own part, at most 40 lines long, used by a config's `imports` without touching fmd."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fmd import commands
from fmd.data import load as load_data
from fmd.evaluation import evaluate
from fmd.math import operators
from fmd.math.pixels import to_unit
from fmd.sampling.sampler import load
from tests.helpers import toys

HERE = Path(__file__).parent
PARTS = sorted(path for path in HERE.glob("my_*.py"))
ONE = {"parallel": {"mode": "jit"}, "log": {"samples_every": 0, "eval_every": 0, "every": 4}, "sample": {"steps": 2}}

# A config for each part that lies in the model, the method, the path, the sampling or the data.
CONFIGS = {
    "my_model": {"model": {"name": "my_model", "width": 8}},
    "my_schedule": {"path": {"schedule": {"name": "my_schedule", "power": 1.5}}},
    "my_grid": {"sample": {"grid": {"name": "my_grid", "power": 2.0}, "steps": 2}},
    "my_rule": {"sample": {"guidance": {"name": "my_rule", "weight": 3.0, "until": 0.7}, "steps": 2}},
    "my_rule_with_memory": {"sample": {"guidance": {"name": "my_rule_with_memory", "weight": 3.0}, "steps": 2}},
    "my_source": {"data": {"source": "my_source"}, "model": toys.UNET},
    "my_condition": {"data": {"source": "with_my_condition"}, "model": toys.UNET},
    "my_method": {
        "method": {"name": "my_method"},
        "model": {"name": "toy_jumps"},
        "path": {"times": {"name": "uniform"}},
    },
    "my_method_with_teacher": {"method": {"name": "my_method_with_teacher", "pull": 0.5}},
}


@pytest.mark.parametrize("path", PARTS, ids=lambda path: path.stem)
def test_a_part_is_a_short_file(path):
    assert len(path.read_text().splitlines()) <= 40


def trained(folder, name, **config):
    config = {**ONE, "imports": ["tests.helpers.toys", f"tests.extending.{name}"], **config}
    return commands.train_config(toys.config(train={"num_steps": 4}, **config), folder / "run")


@pytest.mark.parametrize("name", CONFIGS)
def test_a_part_of_ones_own_is_trained_and_sampled(name, tmp_path):
    run = trained(tmp_path, name, **CONFIGS[name])
    assert run.finished
    assert np.isfinite(run.logs["metrics"].lines[-1]["loss"])
    sampler = load(tmp_path / "run")
    y = jax.tree.map(lambda part: part[:8], run.dataset.test.y)
    drawn = sampler.sample(y, jax.random.key(0))
    assert drawn.images.shape == (8, 8, 8, 1)
    assert drawn.success.all()
    if name == "my_method_with_teacher":
        assert run.logs["metrics"].lines[-1]["distance"] >= 0


def test_features_of_ones_own_judge_samples(tmp_path):
    trained(tmp_path, "my_features")
    sampler, dataset = load(tmp_path / "run"), load_data("toy")
    request = evaluate.Request(n_samples=24, features="my_features")
    result = evaluate.evaluate(sampler, dataset, request, sampler.settings, folder=tmp_path / "kept", quiet=True)
    assert result["settings"]["features"] == "my_features-1"
    assert np.isfinite(result["figures"]["test"]["fid"])


def test_a_callback_of_ones_own_ends_a_run(tmp_path):
    run = trained(tmp_path, "my_callback", log={**ONE["log"], "callbacks": ["tests.extending.my_callback:StopEarly"]})
    assert (run.step, run.finished) == (3, False) or run.step == 4
    assert (tmp_path / "run" / "mine.csv").exists()


def test_an_operator_of_ones_own_is_restored_from(tmp_path):
    """By name; JAX transposes it, conjugate gradients invert it."""
    trained(tmp_path, "my_operator")
    sampler, images = load(tmp_path / "run"), load_data("toy").test.images[:3]
    mine = operators.get("my_operator", gain=0.5).on(sampler.image_shape)
    y = mine(to_unit(jnp.asarray(images)))
    restored = sampler.restore(y, mine, jax.random.key(0), method="projection", steps=2)
    found = mine(to_unit(jnp.asarray(restored)))
    assert np.abs(np.asarray(found - y)).mean() < 0.3  # what uint8 clips is lost
    assert restored.shape == images.shape
