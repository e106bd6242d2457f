"""A run, its export, and a sampler of the same weights, each made once."""

import shutil

import jax
import numpy as np
import pytest

from fmd.devices import make_layout
from fmd.export import exporter
from fmd.sampling.sampler import Sampler, Samples
from tests.helpers import half_trained


@pytest.fixture(scope="session")
def info():
    return half_trained.make_info()


@pytest.fixture(scope="session")
def params(info):
    return half_trained.make_params(info)


@pytest.fixture(scope="session")
def run(info, params, tmp_path_factory):
    return half_trained.write_run(tmp_path_factory.mktemp("run") / "run", info, params)


@pytest.fixture(scope="session")
def exported(run, tmp_path_factory):
    return exporter.export(run, tmp_path_factory.mktemp("models") / "toy")


@pytest.fixture
def copied(exported, tmp_path):
    """A copy to damage."""
    return shutil.copytree(exported, tmp_path / "copied")


@pytest.fixture(scope="session")
def sampler(info, params):
    return Sampler.from_info(info, params=params, layout=make_layout("jit"))


@pytest.fixture
def quick(monkeypatch):
    """Exports without what takes seconds: a program that is none, and black samples."""

    def sample(self, y, key, *arguments, **more):
        count = len(jax.tree.leaves(y)[0])
        return Samples(np.zeros((count, *self.image_shape), np.uint8), np.ones(count, np.int32), np.ones(count, bool))

    monkeypatch.setattr(exporter.portable, "serialize", lambda *arguments: b"a program")
    monkeypatch.setattr(exporter.Sampler, "sample", sample)
