"""An untrained toy network and its sampler, made once per file."""

import jax
import numpy as np
import pytest
import toys

from fmd.models.registry import build_model
from fmd.sampling.sampler import Sampler
from fmd.training import setup
from fmd.utils.distributed import make_layout


@pytest.fixture(scope="module")
def params():
    model = build_model("toy", {"num_classes": toys.CLASSES})
    x, t, y = np.zeros((1, 8, 8, 1), np.float32), np.zeros(1, np.float32), np.zeros(1, np.int32)
    return jax.device_get(jax.jit(model.init)(jax.random.key(1), x, t, y)["params"])


@pytest.fixture(scope="module")
def facts():
    return setup.make_facts(toys.config(), toys.dataset())


@pytest.fixture(scope="module")
def sampler(facts, params):
    return Sampler.from_facts(facts, params=params, layout=make_layout("jit"))
