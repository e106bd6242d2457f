"""A run, its export, and a sampler of the same weights, each made once."""

import shutil

import half_trained
import numpy as np
import pytest

from fmd.export import exporter
from fmd.sampling.program import Samples
from fmd.sampling.sampler import Sampler
from fmd.utils.distributed import make_layout


@pytest.fixture(scope="session")
def params():
    return half_trained.make_params()


@pytest.fixture(scope="session")
def run(params, tmp_path_factory):
    return half_trained.write_run(tmp_path_factory.mktemp("run") / "run", half_trained.make_facts(), params)


@pytest.fixture(scope="session")
def exported(run, tmp_path_factory):
    return exporter.export(run, tmp_path_factory.mktemp("models") / "toy")


@pytest.fixture
def copied(exported, tmp_path):
    """A copy to damage."""
    return shutil.copytree(exported, tmp_path / "copied")


@pytest.fixture(scope="session")
def sampler(params):
    return Sampler.from_facts(half_trained.make_facts(), params=params, layout=make_layout("jit"))


@pytest.fixture
def quick(monkeypatch):
    """Exports without what takes seconds: a program that is none, and black samples."""

    def sample(self, labels, key):
        count = len(labels)
        return Samples(np.zeros((count, *self.image_shape), np.uint8), np.ones(count, np.int32), np.ones(count, bool))

    monkeypatch.setattr(exporter.portable, "serialize", lambda *arguments: b"a program")
    monkeypatch.setattr(exporter.Sampler, "sample", sample)
