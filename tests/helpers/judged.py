"""Shared by the tests of evaluation: a model that was not trained, and features whose values are known.

The toy's images have a shade per class. The features "quarters" are the means of the four quarters of an image; their
logits say how near their mean is to the shade of each class.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from fmd import methods
from fmd.data import ImageDataset, register_source
from fmd.devices import make_layout
from fmd.evaluation.evaluate import Request
from fmd.evaluation.features import Extractor, register_features
from fmd.math.simulators import Solution
from fmd.methods import Loss
from fmd.sampling.sampler import Sampler, model_of
from fmd.training import recipe as recipes
from tests.helpers import toys

SHADES = (60.0 * np.arange(toys.CLASSES) + 30.0).astype(np.float32)
REQUEST = Request(n_samples=32, features="quarters", references=("test", "train"))


def means_and_shades(params, images):
    quarters = images.reshape(-1, 2, 4, 2, 4).astype(jnp.float32).mean(axis=(2, 4)).reshape(-1, 4)
    return quarters, -jnp.abs(quarters.mean(axis=1)[:, None] - params["shades"][None])


@register_features("quarters")
def quarters(dataset):
    return Extractor("quarters-1", {"shades": SHADES}, means_and_shades)


@register_features("thousand")
def thousand(dataset):
    """Logits of other classes than the data set's."""
    return Extractor("thousand-1", {"shades": np.zeros(1000, np.float32)}, means_and_shades)


@register_source("as_many")
def as_many():
    """The toy with a test split of 96 images, enough for the covariance of 64 pixels."""
    train = toys.dataset().train
    return ImageDataset("as_many", train, train, toys.CLASSES, "made up by the tests")


@dataclass(frozen=True)
class Named:
    """The draw of `Fieldless`: a type of its own."""

    x0: jax.Array
    x1: jax.Array
    y: jax.Array


jax.tree_util.register_dataclass(Named)


@methods.register("fieldless")
@dataclass(frozen=True)
class Fieldless:
    """A method with neither field nor times: the network is regressed on the image from noise."""

    label_dropout: float = 0.1
    second_time, needs_teacher = False, False

    def draw(self, rng, x1, y):
        return Named(rng.normal("noise", x1.shape[1:]), x1, y)

    def loss(self, network, drawn, teacher=None):
        t = jnp.zeros(len(drawn.x1))
        error = network(drawn.x0, t, drawn.y) - drawn.x1
        return Loss(jnp.mean(error**2, axis=(1, 2, 3)), t, {"bias": jnp.mean(error, axis=(1, 2, 3))})

    def sample(self, network, x0, y, settings):
        count = x0.shape[0]
        x = network(x0, jnp.zeros(count), y)
        return Solution(x, None, None, jnp.ones(count, jnp.int32), jnp.isfinite(x).all(axis=(1, 2, 3)))


FIELDLESS = {
    "method": {"name": "fieldless"},
    "path": {"times": {"name": "uniform"}},
    "sample": {"guidance": {"name": "cfg", "weight": 1.0}},
}


def make_info(dataset=None, **overrides):
    """The info of a run of the toy at step 8."""
    sample = {"solver": "euler", "steps": 2, "guidance": {"name": "cfg", "weight": 2.0}}
    config = toys.config(**{"sample": sample, **overrides})
    return recipes.make_info(config, dataset or toys.dataset()).replace(step=8, average="decay0")


def make_sampler(info=None, layout=None):
    """A sampler with the initial parameters of the toy."""
    info = info or make_info()
    model = model_of(info)
    params = jax.jit(lambda key: recipes.init_params(model, key, info.image_shape, info.conditions))(jax.random.key(1))
    return Sampler.from_info(info, params=params, model=model, layout=layout or make_layout())
