"""The validation loss is the method's own, from fixed noise and fixed times."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fmd import methods
from fmd.data import batch_indices
from fmd.devices import make_layout
from fmd.evaluation.validation import TIME_MARGIN, make_validation
from fmd.math import paths, schedules
from fmd.models.network import ModelNetwork
from fmd.randomness import example_normal, stream
from fmd.sampling.sampler import model_of
from tests.helpers import judged, toys


def pairs(info, split, count):
    """x0, x1, labels and t of the examples, written out once more."""
    rows = batch_indices(0, 0, count, len(split))
    x1 = jnp.asarray(split.images[rows] / np.float32(127.5) - 1, jnp.float32)
    x0 = example_normal(stream(info.config.seed, "eval"), jnp.arange(count, dtype=jnp.int32), x1.shape[1:])
    t = np.clip((np.arange(count, dtype=np.float32) + 0.5) / count, TIME_MARGIN, 1 - TIME_MARGIN)
    return x0, x1, jnp.asarray(split.labels[rows]), jnp.asarray(t)


def validation(info, params, split, examples=40, layout=None, **options):
    layout = layout or make_layout("jit")
    return make_validation(model_of(info), info, split, layout, examples=examples, **options)(jax.device_get(params))


def test_squared_regression_of_the_velocity_as_it_always_was(sampler, dataset):
    """Told every label, each example at its own time, whatever is drawn in training."""
    info = judged.make_info()
    x0, x1, labels, t = pairs(info, dataset.test, 40)
    linear = schedules.get("linear")
    x_t = paths.interpolate(linear, x0, x1, t)
    v = sampler.model.apply({"params": sampler.params}, x_t, t, labels, train=False)
    expected = jnp.mean((v - paths.velocity(linear, x0, x1, t)) ** 2)
    for training in ({}, {"train": {"label_dropout": 1.0}}, {"path": {"coupling": {"name": "optimal_transport"}}}):
        found = validation(judged.make_info(**training), sampler.params, dataset.test)
        assert found == {"validation_loss": pytest.approx(float(expected), rel=1e-5)}


@pytest.mark.parametrize(
    "config",
    [
        {"train": {"loss": "pseudo_huber"}},
        {
            "path": {"prediction": "data", "times": {"name": "uniform", "clip": 0.01}},
            "train": {"weighting": "velocity"},
        },
        {"path": {"prediction": "noise"}},
        {"path": {"schedule": {"name": "cosine"}}},
    ],
    ids=["loss", "weighting", "prediction", "schedule"],
)
def test_what_is_trained_is_what_is_validated(sampler, dataset, config):
    info = judged.make_info(**config)
    method = methods.from_config(info.config)
    x0, x1, labels, t = pairs(info, dataset.test, 40)
    network = ModelNetwork(sampler.model.apply, sampler.params, toys.CLASSES)
    drawn = methods.Drawn(x0, x1, labels, t, jnp.zeros(40, bool))
    expected = float(jnp.mean(method.loss(network, drawn).value))
    found = validation(info, sampler.params, dataset.test)["validation_loss"]
    assert found == pytest.approx(expected, rel=1e-5)
    usual = validation(judged.make_info(), sampler.params, dataset.test)["validation_loss"]
    assert found != pytest.approx(usual, rel=1e-3)


@pytest.mark.parametrize("name", ["mean_flow", "shortcut"])
def test_a_second_time_is_the_first(name, dataset):
    info = judged.make_info(method={"name": name}, model=toys.UNET, sample={"guidance": {"weight": 1.0}})
    two_times = judged.make_sampler(info)
    params = jax.tree.map(lambda leaf: leaf + 0.01, two_times.params)  # an untrained UNet answers zero
    x0, x1, labels, t = pairs(info, dataset.test, 40)
    network = ModelNetwork(two_times.model.apply, params, toys.CLASSES)
    x_t = paths.interpolate(schedules.get("linear"), x0, x1, t)
    error = network(x_t, t, labels, t) - paths.velocity(schedules.get("linear"), x0, x1, t)
    found = validation(info, params, dataset.test)
    squared = found["validation_squared_error" if name == "mean_flow" else "validation_loss"]
    assert squared == pytest.approx(float(jnp.mean(error**2)), rel=1e-4)


def test_a_method_that_draws_its_own_is_validated_as_drawn(sampler, dataset):
    info = judged.make_info(**judged.FIELDLESS)
    x0, x1, labels, _ = pairs(info, dataset.test, 40)
    error = sampler.model.apply({"params": sampler.params}, x0, jnp.zeros(40), labels) - x1
    found = validation(info, sampler.params, dataset.test)
    assert found["validation_loss"] == pytest.approx(float(jnp.mean(error**2)), rel=1e-5)
    assert found["validation_bias"] == pytest.approx(float(jnp.mean(error)), rel=1e-3)


def test_nothing_depends_on_batches_or_devices(sampler, dataset):
    info = judged.make_info(path={"coupling": {"name": "optimal_transport"}})
    whole = validation(info, sampler.params, dataset.test, examples=37)
    for layout in (make_layout("jit"), make_layout("mesh")):
        parts = validation(info, sampler.params, dataset.test, examples=37, layout=layout, batch_size=16)
        assert parts["validation_loss"] == pytest.approx(whole["validation_loss"], rel=1e-5)
