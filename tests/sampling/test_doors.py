"""Everything that the mathematics can do is reached by settings: noise, a weaker model, memory, another schedule."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fmd.checkpoints.store import Store
from fmd.config import Settings
from fmd.devices import make_layout
from fmd.files import write_json
from fmd.math import fields, guidance, schedules, simulators
from fmd.math.pixels import to_uint8
from fmd.models.network import ModelNetwork
from fmd.randomness import example_normal, key, request_rng
from fmd.run_info import FILE
from fmd.sampling.sampler import Sampler
from fmd.training import recipe
from tests.helpers import toys

KEY, LABELS = key(7), np.arange(4, dtype=np.int32)
LINEAR = schedules.get("linear")


@pytest.fixture(scope="module")
def network(sampler):
    return ModelNetwork(sampler.model.apply, sampler.params, toys.CLASSES)


@pytest.fixture(scope="module")
def noise():
    return example_normal(KEY, jnp.arange(4), (8, 8, 1))


def close(found, expected):
    """Equal up to a grey level in a few pixels: two programs may round in different ways."""
    difference = np.abs(np.asarray(found).astype(int) - np.asarray(to_uint8(expected)))
    return difference.max() <= 1 and (difference > 0).mean() < 0.02


def test_noise_samples_the_stochastic_equation(sampler, network, noise):
    rng = request_rng(KEY, jnp.arange(4), 4)
    field = fields.guided_field(network, toys.CLASSES, guidance.get("cfg", weight=2.0))
    expected = simulators.solve_sde(
        field,
        noise,
        rng.key("solver"),
        schedule=LINEAR,
        noise="sigma",
        scale=0.5,
        steps=6,
        args=LABELS,
        end_epsilon=0.0,
    )
    settings = {"sde": {"name": "sigma", "scale": 0.5}, "solver": "euler_maruyama", "steps": 6}
    assert close(sampler(LABELS, KEY, **settings), expected.x)
    one_by_one = np.concatenate([sampler(LABELS, KEY, batch_size=2, **settings)])
    np.testing.assert_array_equal(one_by_one, sampler(LABELS, KEY, **settings))  # noise belongs to an example
    with pytest.raises(ValueError, match="give a key, not noise"):
        sampler(LABELS, noise=np.asarray(noise), **settings)
    with pytest.raises(ValueError, match="takes one of euler_maruyama, heun"):
        sampler(LABELS, KEY, **{**settings, "solver": "midpoint"})


def test_another_schedule_is_sampled_along(sampler, network, noise):
    along = schedules.get("cosine")
    field = fields.guided_field(network, toys.CLASSES, guidance.get("cfg", weight=2.0))
    field = fields.change_schedule(field, LINEAR, along)
    expected = simulators.solve_ode(field, noise, solver="midpoint", steps=3, args=LABELS, end_epsilon=0.0)
    assert close(sampler(LABELS, KEY, schedule={"name": "cosine"}), expected.x)


def test_a_rule_with_memory_is_solved_with_it(sampler, network, noise):
    rule = guidance.get("apg", weight=4.0, momentum=-0.5, schedule=LINEAR)
    field = fields.guided_field(network, toys.CLASSES, rule)
    expected = simulators.solve_ode(
        field, noise, solver="midpoint", steps=3, args=LABELS, memory=rule.init(noise), end_epsilon=0.0
    )
    block = {"name": "apg", "weight": 4.0, "momentum": -0.5}
    found = sampler(LABELS, KEY, rule=block)
    assert close(found, expected.x)
    assert (found != sampler(LABELS, KEY, rule={**block, "momentum": 0.0})).any()
    with pytest.raises(ValueError, match="with memory needs a solver with steps"):
        sampler(LABELS, KEY, rule=block, solver="tsit5")


@pytest.fixture(scope="module")
def weak(info, params, tmp_path_factory):
    """A workdir whose weights are half of the sampler's."""
    folder = tmp_path_factory.mktemp("weak") / "run"
    write_json(folder / FILE, info.to_json())
    store = Store(folder / "checkpoints")
    half = jax.tree.map(lambda leaf: leaf / 2, params)
    store.save(2, ema={name: half for name in info.averages}, train={"step": np.int32(2)})
    store.close()
    return folder


def test_a_weaker_model_guides(sampler, network, noise, params, weak):
    half = ModelNetwork(sampler.model.apply, jax.tree.map(lambda leaf: leaf / 2, params), toys.CLASSES)
    field = fields.autoguided_field(network, half, guidance.get("cfg", weight=2.0))
    expected = simulators.solve_ode(field, noise, solver="midpoint", steps=3, args=LABELS, end_epsilon=0.0)
    drawn = sampler.sample(LABELS, KEY, rule={"weak": str(weak)})
    assert close(drawn.images, expected.x)
    assert (drawn.evaluations == 3 * 2 * 2).all()


def test_a_weaker_model_guides_one_that_was_always_told(params, weak):
    config = toys.config(train={"label_dropout": 0.0}, sample={"guidance": {"name": "cfg", "weight": 1.0}, "steps": 3})
    sampler = Sampler.from_info(recipe.make_info(config, toys.dataset()), params=params, layout=make_layout("jit"))
    assert sampler(LABELS, KEY, rule={"weak": str(weak)}, weight=2.0).shape == (4, 8, 8, 1)
    with pytest.raises(ValueError, match="never saw one"):
        sampler([toys.CLASSES], KEY)


def test_a_weaker_model_of_another_task_is_refused(sampler, info, tmp_path):
    write_json(tmp_path / FILE, info.replace(num_classes=9).to_json())
    store = Store(tmp_path / "checkpoints")
    store.save(2, ema={name: {"w": np.zeros(1)} for name in info.averages}, train={"step": np.int32(2)})
    store.close()
    with pytest.raises(ValueError, match="its num_classes is 9, this model's 4; give a model of the same images"):
        sampler(LABELS, KEY, rule={"weak": str(tmp_path)})


def test_settings_are_one_value_however_they_are_given(sampler):
    by_name = sampler(LABELS, KEY, weight=3.0, solver="heun", steps=4, shift=2.0)
    settings = Settings(solver="heun", steps=4).replace(weight=3.0, grid={"name": "shifted", "factor": 2.0})
    np.testing.assert_array_equal(sampler(LABELS, KEY, settings), by_name)
    assert hash(settings) == hash(sampler.settings.replace(weight=3.0, solver="heun", steps=4, shift=2.0))
    with pytest.raises(ValueError, match="stepz=3 is no setting of a sampler"):
        sampler(LABELS, KEY, stepz=3)
