"""The picture of a model: rows of classes where it is told classes, rows of test images where it is told an image."""

import numpy as np
import pytest

from fmd.export.exporter import export
from fmd.sampling.overview import EXAMPLES, Overview
from tests.export.conftest import quick  # noqa: F401
from tests.helpers import half_trained, toys

HALVED = {"derive": {"low": {"name": "block_average", "factor": 2}}, "told": ("low",)}


@pytest.fixture(scope="module")
def told_an_image():
    return half_trained.make_info(data={"source": "toy", **HALVED})


def test_a_row_per_test_image_between_what_is_told_and_the_truth(told_an_image):
    overview = Overview.of(told_an_image, toys.dataset(), 2)
    asked = overview.asked
    assert (len(asked), overview.rows) == (EXAMPLES, None)
    means = asked.truth.reshape(EXAMPLES, 4, 2, 4, 2, 1).mean(axis=(2, 4))
    np.testing.assert_allclose(127.5 * (asked.y["low"] + 1), means, atol=1e-3)
    images = np.full((2 * EXAMPLES, 8, 8, 1), 7, np.uint8)
    picture = overview.picture(images)
    assert (picture == 7).all(axis=-1).sum() >= images.size * 7**2  # each pixel is a square of 7 x 7


@pytest.mark.parametrize("dataset", [None, toys.dataset()])
def test_a_row_per_class(dataset):
    overview = Overview.of(half_trained.make_info(), dataset, 3)
    assert overview.caption == "A grid of samples, a row per class"
    np.testing.assert_array_equal(overview.asked.y, np.repeat(np.arange(toys.CLASSES), 3))


def test_classes_that_are_not_told_name_no_row(told_an_image):
    overview = Overview.of(told_an_image, None, 2)
    assert overview.caption == "A grid of samples"
    assert set(overview.asked.y) == {"low"}


def test_an_export_shows_what_its_model_is_told(quick, told_an_image, tmp_path):  # noqa: F811
    run = half_trained.write_run(tmp_path / "run", told_an_image, half_trained.make_params(told_an_image))
    folder = export(run, tmp_path / "out", overview=lambda info: Overview.of(info, toys.dataset(), 4))
    card = (folder / "README.md").read_text()
    assert "pipeline_tag: image-to-image\n" in card
    assert "![A row per test image: what the model is told, its draws, the truth](samples.png)" in card
    assert "Drawn by this model: 4 images to a row" in card
