"""Grids: every pixel where it belongs, names beside their rows, any number of channels, no picture too large."""

import numpy as np
import pytest
from PIL import Image

from fmd.utils import viz


def images(count, height=4, width=3, channels=1):
    return np.random.default_rng(0).integers(0, 200, (count, height, width, channels)).astype(np.uint8)


@pytest.mark.parametrize("channels", [1, 3])
def test_every_image_is_in_its_place_on_white(channels):
    x = images(5, channels=channels)
    grid = viz.image_grid(x, columns=2, gap=1, scale=2)[::2, ::2]
    assert grid.shape == (3 * 5 + 1, 2 * 4 + 1, channels)
    ground = np.ones(grid.shape[:2], bool)
    for i in range(5):
        place = slice(1 + i // 2 * 5, 5 + i // 2 * 5), slice(1 + i % 2 * 4, 4 + i % 2 * 4)
        np.testing.assert_array_equal(grid[place], x[i])
        ground[place] = False
    assert (grid[ground] == 255).all()


def test_scale_makes_squares_of_one_colour():
    x = images(1)
    np.testing.assert_array_equal(viz.image_grid(x, gap=0, scale=3), x[0].repeat(3, 0).repeat(3, 1))


def test_a_near_square_by_default():
    assert viz.image_grid(images(10), gap=0).shape == (4 * 4, 3 * 3, 1)


@pytest.mark.parametrize("channels", [2, 4, 6])
def test_channels_that_are_no_colours_stand_side_by_side(channels):
    x = images(2, channels=channels)
    grid = viz.image_grid(x, columns=1, gap=0)
    assert grid.shape == (8, 3 * channels, 1)
    for channel in range(channels):
        np.testing.assert_array_equal(grid[4:, 3 * channel : 3 * channel + 3, 0], x[1, :, :, channel])


@pytest.mark.parametrize("x", [images(0), images(2)[..., 0], images(2).astype(np.float32), images(2, channels=0)])
def test_what_is_no_picture_is_refused(x):
    with pytest.raises(ValueError, match="a grid takes uint8 images"):
        viz.image_grid(x)


@pytest.mark.parametrize(("count", "side", "scale"), [(4, 300, 1), (100, 28, 8), (400, 7, 1), (1, 1000, 1)])
def test_a_picture_stays_within_its_longest_side(count, side, scale):
    grid = viz.image_grid(images(count, side, side), scale=scale, longest_side=256)
    assert 64 <= max(grid.shape) <= 256


def test_shrinking_is_the_rounded_mean_over_squares():
    x = images(2, 4, 6, 3)
    means = x.reshape(2, 2, 2, 3, 2, 3).mean((2, 4))
    np.testing.assert_array_equal(viz.shrink(x, 2), np.floor(means + 0.5))
    ragged = viz.shrink(x, 4)
    assert ragged.shape == (2, 1, 2, 3)
    np.testing.assert_array_equal(ragged[:, 0, 1], np.floor(x[:, :, 4:].mean((1, 2)) + 0.5))
    assert viz.shrink(x, 1) is x
    assert (viz.shrink(np.full((1, 50, 50, 1), 255, np.uint8), 50) == 255).all()


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_names_are_at_the_left_of_their_rows(channels):
    x = images(6, 12, 12, channels)
    names = ["", "Ankle boot", "猫"]
    picture = viz.labelled_grid(x, names, scale=2)
    grid = viz.image_grid(x, columns=2, scale=2)
    margin, rest = picture[:, : -grid.shape[1]], picture[:, -grid.shape[1] :]
    np.testing.assert_array_equal(rest, grid)
    inked = (margin < 128).any((1, 2)).nonzero()[0] / len(margin)
    assert inked.min() > 1 / 3  # nothing in the first row
    assert ((inked > 1 / 3) & (inked < 2 / 3)).any()
    assert (inked > 2 / 3).any()
    np.testing.assert_array_equal(picture, viz.labelled_grid(x, names, scale=2))


@pytest.mark.parametrize("channels", [1, 3])
def test_names_stand_above_their_columns(channels):
    x = images(6, 12, 20, channels)
    names, above = ["row", "r"], ["t = 0", "", "1"]
    picture = viz.labelled_grid(x, names, column_names=above, scale=2)
    rows = viz.labelled_grid(x, names, scale=2)
    np.testing.assert_array_equal(picture[-len(rows) :], rows)
    grid = viz.image_grid(x, columns=3, scale=2)
    band = picture[: -len(rows)]
    assert (band[:, : -grid.shape[1]] == 255).all()  # nothing above the names of the rows
    inked = (band[:, -grid.shape[1] :] < 128).any((0, 2)).nonzero()[0] / grid.shape[1]
    assert abs(inked[inked < 1 / 2].mean() - 1 / 6) < 0.03
    assert abs(inked[inked > 1 / 2].mean() - 5 / 6) < 0.03
    assert not ((inked > 1 / 3) & (inked < 2 / 3)).any()
    assert (inked < 1 / 3).sum() > 3 * (inked > 2 / 3).sum()  # the first is the longer one
    np.testing.assert_array_equal(
        viz.labelled_grid(x, ["", ""], column_names=above, scale=2), picture[:, -grid.shape[1] :]
    )


@pytest.mark.parametrize(("count", "scale", "shown"), [(4, 4, 4), (12, 2, 12), (12, 1, 6), (30, 1, 15)])
def test_names_above_narrow_columns_do_not_run_into_one_another(count, scale, shown):
    """Shown smaller, and where that is not enough every second one. Dashes join, so that a name is one stroke."""
    x = images(count, 12, 12)
    picture = viz.labelled_grid(x, [""], column_names=["———"] * count, scale=scale)
    band = picture[: len(picture) - len(viz.image_grid(x, columns=count, scale=scale))]
    assert viz.SMALLEST_FONT < len(band) < 2 * viz.FONT_SIZE
    strokes = np.flatnonzero(np.diff((band < 200).any((0, 2)), prepend=False, append=False)).reshape(-1, 2)
    assert len(strokes) == shown
    assert (strokes[1:, 0] - strokes[:-1, 1]).min() > 3


def test_no_space_for_names_that_are_not_there():
    x = images(4)
    np.testing.assert_array_equal(viz.labelled_grid(x, ["", ""]), viz.image_grid(x, columns=2))


def test_a_long_name_is_cut_and_many_rows_have_small_names():
    wide = viz.labelled_grid(images(1, 40, 40), ["w" * 1000])
    assert wide.shape[1] < 600
    assert viz.labelled_grid(images(200), [str(i) for i in range(200)]).shape[0] == 200 * 6 + 2


def test_rows_must_be_equally_long():
    with pytest.raises(ValueError, match="5 images cannot be shared out to 2 rows"):
        viz.labelled_grid(images(5), ["a", "b"])
    with pytest.raises(ValueError, match="3 column names for 2 columns"):
        viz.labelled_grid(images(4), ["a", "b"], column_names=["x", "y", "z"])


@pytest.mark.parametrize("channels", [1, 3])
def test_a_png_reads_back_and_is_not_overwritten(tmp_path, channels):
    picture = viz.image_grid(images(3, channels=channels))
    viz.save_png(tmp_path / "x.png", picture)
    read = np.asarray(Image.open(tmp_path / "x.png"))
    np.testing.assert_array_equal(read.reshape(picture.shape), picture)
    before = (tmp_path / "x.png").read_bytes()
    with pytest.raises(FileExistsError):
        viz.save_png(tmp_path / "x.png", picture)
    viz.save_png(tmp_path / "x.png", picture, overwrite=True)
    assert (tmp_path / "x.png").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["x.png"]
