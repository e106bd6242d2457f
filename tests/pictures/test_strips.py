"""Strips and sweeps: rows are examples, columns are times or weights, and say so above."""

import numpy as np
import pytest

from fmd.pictures import grids


@pytest.fixture
def images():
    """Four columns, three rows, each image in a colour of its own: 10 column + row."""
    colours = 10 * np.arange(4)[:, None] + np.arange(3)
    return np.broadcast_to(colours[..., None, None, None], (4, 3, 20, 20, 1)).astype(np.uint8)


@pytest.mark.parametrize("make", [grids.trajectory_strip, grids.guidance_sweep])
def test_rows_are_examples_and_columns_are_times_or_weights(images, make):
    picture = make(images, [0, 0.25, 0.5, 1], ["a", "b", "c"], scale=2)
    grid = picture[-3 * 44 - 4 :, -4 * 44 - 4 :, 0]
    np.testing.assert_array_equal(grid[24::44, 24::44], 10 * np.arange(4) + np.arange(3)[:, None])
    assert (picture.shape[0] > len(grid)) & (picture.shape[1] > grid.shape[1])
    np.testing.assert_array_equal(picture, make(images, [0, 0.25, 0.5, 1], ["a", "b", "c"], scale=2))


def test_without_names_of_rows_there_is_no_margin(images):
    assert grids.trajectory_strip(images, range(4)).shape[1] == 4 * 22 + 2


@pytest.mark.parametrize(("times", "names"), [([0, 1], ()), (range(4), ["a"]), (range(4), list("abcd"))])
def test_what_does_not_fit_is_refused(images, times, names):
    with pytest.raises(ValueError, match=r"takes images \[columns, rows, H, W, C\], not \(4, 3, 20, 20, 1\)"):
        grids.trajectory_strip(images, times, names)
    with pytest.raises(ValueError, match="takes images"):
        grids.guidance_sweep(images[0], range(3))


def test_it_is_a_labelled_grid_row_by_row(images):
    """The first column says what the numbers are."""
    rows, names = images.swapaxes(0, 1).reshape(12, 20, 20, 1), ["x", "", ""]
    expected = grids.labelled_grid(rows, names, column_names=["w = 0", "1", "2.5", "10"])
    np.testing.assert_array_equal(grids.guidance_sweep(images, [0, 1, 2.5, 10], names), expected)
    expected = grids.labelled_grid(rows, [""] * 3, column_names=["t = 0", "0.333", "0.667", "1"])
    np.testing.assert_array_equal(grids.trajectory_strip(images, np.linspace(0, 1, 4)), expected)
