"""An untrained toy network and its sampler, made once per file."""

import jax
import numpy as np
import pytest

from fmd.devices import make_layout
from fmd.models.registry import build_model
from fmd.sampling.sampler import Sampler
from fmd.training import recipe
from tests.helpers import toys


@pytest.fixture(scope="module")
def params():
    model = build_model("toy", {"num_classes": toys.CLASSES})
    x, t, y = np.zeros((1, 8, 8, 1), np.float32), np.zeros(1, np.float32), np.zeros(1, np.int32)
    return jax.device_get(jax.jit(model.init)(jax.random.key(1), x, t, y)["params"])


@pytest.fixture(scope="module")
def info():
    return recipe.make_info(toys.config(), toys.dataset())


@pytest.fixture(scope="module")
def sampler(info, params):
    return Sampler.from_info(info, params=params, layout=make_layout("jit"))
