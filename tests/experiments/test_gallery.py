"""The gallery: each script draws, stands in the index once, and has its picture; nothing is learned here."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import fmd
from fmd.sampling.sampler import Sampler
from tests.helpers import half_trained, toys

pytest.importorskip("matplotlib")
from experiments.gallery import SECTIONS
from experiments.gallery import __main__ as gallery
from experiments.reference import moving_digits

SHARED = {"__init__", "__main__", "plane", "style"}
FOLDER = Path(gallery.__file__).parent


@pytest.fixture(scope="module")
def digits():
    """A small network in the place of the one that ships, with jumps and a flow."""
    info = half_trained.make_info(method={"name": "mean_flow"}, path={"times": {"name": "uniform"}})
    return Sampler.from_info(info, params=half_trained.make_params(info), layout=toys.layout("jit", 1))


def test_each_script_has_a_place_and_a_picture():
    scripts = {path.stem for path in FOLDER.glob("*.py")} - SHARED
    assert sorted(gallery.NAMES) == sorted(scripts)
    assert {path.stem for path in gallery.PICTURES.iterdir()} == scripts
    assert all(SECTIONS.values())


def test_pictures_are_small():
    sizes = {path.name: path.stat().st_size for path in gallery.PICTURES.iterdir()}
    assert max(sizes.values()) <= 40_000, sizes
    assert sum(sizes.values()) <= 800_000, sizes


@pytest.mark.parametrize("name", gallery.NAMES)
def test_it_draws(name, digits, monkeypatch):
    monkeypatch.setattr(fmd, "load", lambda path: digits)
    drawn = np.asarray(gallery.render(name, small=True).convert("L"))
    kept = Image.open(gallery.PICTURES / f"{name}.png")
    assert drawn.shape[1] == kept.width == 720
    assert drawn.std() > 3  # letters, lines or dots on the ground
    assert len(np.unique(drawn)) > 8
    assert len((FOLDER / f"{name}.py").read_text().splitlines()) <= 90


def test_the_moving_picture_of_the_readme_is_small_and_drawn(digits, monkeypatch):
    """Above noise becomes digits, below a walk ends where it began; the one that is kept is of full length."""
    monkeypatch.setattr(fmd, "load", lambda path: digits)
    drawn = moving_digits.frames(6)
    assert drawn.shape == (6, 20, 8, 8, 1)
    assert set(np.unique(drawn)) <= set(range(0, 256, moving_digits.LEVEL))
    assert (drawn[3, :10] != drawn[0, :10]).any()
    np.testing.assert_array_equal(drawn[4, :10], drawn[3, :10])  # a rest at the end
    assert (drawn[1, 10:] != drawn[0, 10:]).any()
    kept = Path(moving_digits.__file__).with_name("moving_digits.webp")
    assert kept.stat().st_size <= 300_000
    with Image.open(kept) as animation:
        assert (animation.n_frames, animation.size) == (40, (604, 124))
