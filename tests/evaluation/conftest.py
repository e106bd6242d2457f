"""One sampler and one data set for all tests of evaluation, and a cache of each test's own."""

import pytest

from tests.helpers import judged, toys


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FMD_DATA_DIR", str(tmp_path / "data"))


@pytest.fixture(scope="session")
def dataset():
    return toys.dataset()


@pytest.fixture(scope="session")
def sampler():
    return judged.make_sampler()


@pytest.fixture
def settings(sampler):
    return sampler.settings
