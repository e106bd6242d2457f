"""Bits per dimension against densities that are known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fmd.data import batch_indices
from fmd.devices import make_layout
from fmd.evaluation import generative
from fmd.models.network import in_float32
from fmd.models.registry import build_model
from fmd.sampling.sampler import Sampler
from tests.helpers import judged, toys


class Answers:
    """A model that gives one answer, with the fields of a network."""

    num_classes, dtype = toys.CLASSES, "float32"

    def __init__(self, answer, dtype="float32"):
        self.answer, self.dtype = answer, dtype

    def init(self, *arguments, **options):
        return {"params": {}}

    def apply(self, variables, x, t, y, train=False):
        return self.answer(x, jnp.dtype(self.dtype))

    def clone(self, dtype):
        return Answers(self.answer, dtype)


def answering(answer, dtype="float32", **info):
    return Sampler.from_info(judged.make_info(**info), params={}, model=Answers(answer, dtype))


def standard_normal_bits(images):
    x = images / 127.5 - 1
    return np.mean(0.5 * x**2 + 0.5 * np.log(2 * np.pi)) / np.log(2) - np.log2(2 / 255)


@pytest.mark.parametrize("draws", [1, 3])
def test_a_model_that_does_nothing_has_the_density_of_noise(dataset, draws):
    still = answering(lambda x, dtype: jnp.zeros_like(x))
    found = generative.likelihood(still, dataset.test, examples=12, seed=0, draws=draws, quiet=True)
    rows = batch_indices(0, 0, 12, len(dataset.test))
    assert found["bits_per_dim"] == pytest.approx(standard_normal_bits(dataset.test.images[rows]), abs=1e-3)
    assert (found["examples"], found["unsolved"]) == (12, 0)
    assert (found["draws"], found["trace"]) == (draws, "hutchinson" if draws == 1 else "exact")


def test_several_draws_give_a_tighter_bound(dataset):
    """A field that is steep in x, so that dequantisations of an image differ in density."""
    steep = answering(lambda x, dtype: 40 * jnp.sin(3 * x))
    one, many = (
        generative.likelihood(steep, dataset.test, examples=6, seed=0, draws=draws, quiet=True) for draws in (1, 8)
    )
    assert one["unsolved"] == many["unsolved"] == 0
    assert many["bits_per_dim"] < one["bits_per_dim"]


def test_nothing_depends_on_batches_or_devices(sampler, dataset):
    small = Sampler(sampler.model, jax.device_get(sampler.params), sampler.info, make_layout("jit"))
    one = generative.likelihood(small, dataset.test, examples=11, seed=0, quiet=True)
    found = generative.likelihood(sampler, dataset.test, examples=11, seed=0, quiet=True, batch_size=5)
    assert found["bits_per_dim"] == pytest.approx(one["bits_per_dim"], rel=1e-4)
    assert found["standard_error"] == pytest.approx(one["standard_error"], rel=1e-3)


def test_a_network_of_bfloat16_is_asked_in_float32(dataset):
    def rounded(x, dtype):
        return (x.astype(dtype) * jnp.asarray(0.3, dtype)).astype(jnp.float32)

    wide, narrow = (
        generative.likelihood(answering(rounded, dtype), dataset.test, examples=6, seed=0, quiet=True)
        for dtype in ("float32", "bfloat16")
    )
    assert narrow == wide


def test_a_model_of_flax_keeps_all_but_its_dtype():
    wide, narrow = (
        build_model("unet", {**toys.UNET, **more, "num_classes": 4}) for more in ({}, {"dtype": "bfloat16"})
    )
    assert narrow != wide
    assert in_float32(narrow) == wide
    assert in_float32(wide) is wide


def test_a_method_without_a_field_is_refused_in_one_line(dataset):
    fieldless = judged.make_sampler(judged.make_info(**judged.FIELDLESS))
    with pytest.raises(ValueError, match="needs the velocity field of a method, and 'fieldless' has none") as refused:
        generative.likelihood(fieldless, dataset.test, examples=4, seed=0, quiet=True)
    assert "\n" not in str(refused.value)
