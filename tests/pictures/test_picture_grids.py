"""Grids: every pixel where it belongs, names beside their rows, any number of channels, no picture too large."""

import numpy as np
import pytest
from PIL import Image

from fmd.pictures import grids, letters


def images(count, height=4, width=3, channels=1):
    return np.random.default_rng(0).integers(0, 200, (count, height, width, channels)).astype(np.uint8)


@pytest.mark.parametrize("channels", [1, 3])
def test_every_image_is_in_its_place_on_white(channels):
    x = images(5, channels=channels)
    grid = grids.image_grid(x, columns=2, gap=1, scale=2)[::2, ::2]
    assert grid.shape == (3 * 5 + 1, 2 * 4 + 1, channels)
    ground = np.ones(grid.shape[:2], bool)
    for i in range(5):
        place = slice(1 + i // 2 * 5, 5 + i // 2 * 5), slice(1 + i % 2 * 4, 4 + i % 2 * 4)
        np.testing.assert_array_equal(grid[place], x[i])
        ground[place] = False
    assert (grid[ground] == 255).all()


def test_scale_makes_squares_of_one_colour():
    x = images(1)
    np.testing.assert_array_equal(grids.image_grid(x, gap=0, scale=3), x[0].repeat(3, 0).repeat(3, 1))


def test_a_near_square_by_default():
    assert grids.image_grid(images(10), gap=0).shape == (4 * 4, 3 * 3, 1)


@pytest.mark.parametrize("channels", [2, 4, 6])
def test_channels_that_are_no_colours_stand_side_by_side(channels):
    x = images(2, channels=channels)
    grid = grids.image_grid(x, columns=1, gap=0)
    assert grid.shape == (8, 3 * channels, 1)
    for channel in range(channels):
        np.testing.assert_array_equal(grid[4:, 3 * channel : 3 * channel + 3, 0], x[1, :, :, channel])


@pytest.mark.parametrize("x", [images(0), images(2)[..., 0], images(2).astype(np.float32), images(2, channels=0)])
def test_what_is_no_picture_is_refused(x):
    with pytest.raises(ValueError, match="a grid takes uint8 images"):
        grids.image_grid(x)


@pytest.mark.parametrize(("count", "side", "scale"), [(4, 300, 1), (100, 28, 8), (400, 7, 1), (1, 1000, 1)])
def test_a_picture_stays_within_its_longest_side(count, side, scale):
    grid = grids.image_grid(images(count, side, side), scale=scale, longest_side=256)
    assert 64 <= max(grid.shape) <= 256


def test_shrinking_is_the_rounded_mean_over_squares():
    x = images(2, 4, 6, 3)
    means = x.reshape(2, 2, 2, 3, 2, 3).mean((2, 4))
    np.testing.assert_array_equal(grids.shrink(x, 2), np.floor(means + 0.5))
    ragged = grids.shrink(x, 4)
    assert ragged.shape == (2, 1, 2, 3)
    np.testing.assert_array_equal(ragged[:, 0, 1], np.floor(x[:, :, 4:].mean((1, 2)) + 0.5))
    assert grids.shrink(x, 1) is x
    assert (grids.shrink(np.full((1, 50, 50, 1), 255, np.uint8), 50) == 255).all()


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_names_are_at_the_left_of_their_rows(channels):
    x = images(6, 12, 12, channels)
    names = ["", "Ankle boot", "cat"]
    picture = grids.labelled_grid(x, names, scale=2)
    grid = grids.image_grid(x, columns=2, scale=2)
    margin, rest = picture[:, : -grid.shape[1]], picture[:, -grid.shape[1] :]
    np.testing.assert_array_equal(rest, grid)
    inked = (margin < 128).any((1, 2)).nonzero()[0] / len(margin)
    assert inked.min() > 1 / 3  # nothing in the first row
    assert ((inked > 1 / 3) & (inked < 2 / 3)).any()
    assert (inked > 2 / 3).any()
    np.testing.assert_array_equal(picture, grids.labelled_grid(x, names, scale=2))


@pytest.mark.parametrize("channels", [1, 3])
def test_names_stand_above_their_columns(channels):
    x = images(6, 12, 20, channels)
    names, above = ["row", "r"], ["t = 0", "", "1"]
    picture = grids.labelled_grid(x, names, column_names=above, scale=2)
    rows = grids.labelled_grid(x, names, scale=2)
    np.testing.assert_array_equal(picture[-len(rows) :], rows)
    grid = grids.image_grid(x, columns=3, scale=2)
    band = picture[: -len(rows)]
    assert (band[:, : -grid.shape[1]] == 255).all()  # nothing above the names of the rows
    inked = (band[:, -grid.shape[1] :] < 128).any((0, 2)).nonzero()[0] / grid.shape[1]
    assert abs(inked[inked < 1 / 2].mean() - 1 / 6) < 0.03
    assert abs(inked[inked > 1 / 2].mean() - 5 / 6) < 0.03
    assert not ((inked > 1 / 3) & (inked < 2 / 3)).any()
    assert (inked < 1 / 3).sum() > 3 * (inked > 2 / 3).sum()  # the first is the longer one
    np.testing.assert_array_equal(
        grids.labelled_grid(x, ["", ""], column_names=above, scale=2), picture[:, -grid.shape[1] :]
    )


@pytest.mark.parametrize(("count", "scale", "shown"), [(4, 4, 4), (12, 2, 12), (12, 1, 6), (30, 1, 15)])
def test_names_above_narrow_columns_do_not_run_into_one_another(count, scale, shown):
    """Shown smaller, and where that is not enough every second one. Underscores are two pixels apart at most."""
    x = images(count, 12, 12)
    picture = grids.labelled_grid(x, [""], column_names=["___"] * count, scale=scale)
    band = picture[: len(picture) - len(grids.image_grid(x, columns=count, scale=scale))]
    assert letters.SMALLEST_FONT < len(band) < 2 * letters.FONT_SIZE
    strokes = np.flatnonzero(np.diff((band < 200).any((0, 2)), prepend=False, append=False)).reshape(-1, 2)
    gaps = strokes[1:, 0] - strokes[:-1, 1]
    assert (gaps > 2).sum() + 1 == shown
    assert gaps[gaps > 2].min() > 3


def test_no_space_for_names_that_are_not_there():
    x = images(4)
    np.testing.assert_array_equal(grids.labelled_grid(x, ["", ""]), grids.image_grid(x, columns=2))


def test_a_long_name_is_cut_and_many_rows_have_small_names():
    wide = grids.labelled_grid(images(1, 40, 40), ["w" * 1000])
    assert wide.shape[1] < 600
    assert grids.labelled_grid(images(200), [str(i) for i in range(200)]).shape[0] == 200 * 6 + 2


def test_rows_must_be_equally_long():
    with pytest.raises(ValueError, match="5 images cannot be shared out to 2 rows"):
        grids.labelled_grid(images(5), ["a", "b"])
    with pytest.raises(ValueError, match="3 column names for 2 columns"):
        grids.labelled_grid(images(4), ["a", "b"], column_names=["x", "y", "z"])


def same_names(one, other):
    """True where two lists of names give the same picture."""
    x = images(len(one), 12, 12)
    return np.array_equal(grids.labelled_grid(x, one, scale=2), grids.labelled_grid(x, other, scale=2))


def test_letters_that_the_font_lacks_are_no_boxes(caplog):
    """Accents are left out; a name in another script is its number, and a warning says so."""
    with caplog.at_level("WARNING"):
        assert same_names(["café", "Straße", "Łódź —"], ["cafe", "Strasse", "Lodz -"])
        assert not caplog.records
        assert same_names(["cat", "собака", "猫 (cat)"], ["cat", "1", "2"])
    assert "2 names as numbers; their font lacks letters of: собака, 猫 (cat)" in caplog.text
    assert not same_names(["cat"], ["dog"])


def test_every_class_has_its_row_and_its_name():
    rows = grids.choose_rows(range(3), ["ant", "bee", "cat"], per_class=2)
    assert rows.names == ["ant", "bee", "cat"]
    np.testing.assert_array_equal(rows.labels, [0, 0, 1, 1, 2, 2])
    assert grids.choose_rows(range(3), None, per_class=1).names == ["0", "1", "2"]


def test_of_many_classes_a_grid_shows_some_evenly_spread():
    rows = grids.choose_rows(range(100), None, per_class=8)
    assert len(rows.names) <= grids.MOST_ROWS
    assert rows.names == [str(i) for i in range(0, 100, 4)]
    np.testing.assert_array_equal(rows.labels, np.repeat(np.arange(0, 100, 4), 8))
    assert (
        grids.choose_rows(range(100), ["猫"] * 100, per_class=8).names == rows.names
    )  # numbers of classes, not of rows


def test_a_model_without_classes_has_one_row_without_a_name():
    rows = grids.choose_rows([0], None, per_class=2)
    assert rows.names == [""]
    np.testing.assert_array_equal(rows.labels, [0, 0])
    picture = grids.draw_grid(np.zeros((2, 8, 8, 1), np.uint8), rows)
    assert picture.shape == ((2 + 8 + 2) * 7, (2 + 8 + 2 + 8 + 2) * 7, 1)  # scaled up to 56 pixels, without a margin


@pytest.mark.parametrize("channels", [1, 3])
def test_a_png_reads_back_and_is_not_overwritten(tmp_path, channels):
    picture = grids.image_grid(images(3, channels=channels))
    grids.save_png(tmp_path / "x.png", picture)
    read = np.asarray(Image.open(tmp_path / "x.png"))
    np.testing.assert_array_equal(read.reshape(picture.shape), picture)
    before = (tmp_path / "x.png").read_bytes()
    with pytest.raises(FileExistsError):
        grids.save_png(tmp_path / "x.png", picture)
    grids.save_png(tmp_path / "x.png", picture, overwrite=True)
    assert (tmp_path / "x.png").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["x.png"]
