"""Shared by tests of image files: a cache folder of their own, and the lines of the log."""

import pytest
from absl import logging


@pytest.fixture
def cache(monkeypatch, tmp_path):
    """The folder where decoded images are kept, empty at first."""
    monkeypatch.setenv("FMD_DATA_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def log(monkeypatch):
    """The information and the warnings that were logged."""
    lines = []
    for level in ("info", "warning"):
        monkeypatch.setattr(logging, level, lambda message, *values: lines.append(message % values))
    return lines
