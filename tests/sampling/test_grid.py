"""The grid of samples: which classes it shows, and under which names."""

import numpy as np

from fmd.sampling import grid


def facts(classes, names=None):
    return {"num_classes": classes, "class_names": names}


def test_every_class_has_its_row_and_its_name():
    rows = grid.choose_rows(facts(3, ["ant", "bee", "cat"]), per_class=2)
    assert rows.names == ["ant", "bee", "cat"]
    np.testing.assert_array_equal(rows.labels, [0, 0, 1, 1, 2, 2])
    assert grid.choose_rows(facts(3), per_class=1).names == ["0", "1", "2"]


def test_of_many_classes_a_grid_shows_some_evenly_spread():
    rows = grid.choose_rows(facts(100), per_class=8)
    assert len(rows.names) <= grid.MOST_ROWS
    assert rows.names == [str(i) for i in range(0, 100, 4)]
    np.testing.assert_array_equal(rows.labels, np.repeat(np.arange(0, 100, 4), 8))


def test_a_model_without_classes_has_one_row_without_a_name():
    rows = grid.choose_rows(facts(0), per_class=2)
    assert rows.names == [""]
    np.testing.assert_array_equal(rows.labels, [0, 0])
    picture = grid.draw_grid(np.zeros((2, 8, 8, 1), np.uint8), rows)
    assert picture.shape == ((2 + 8 + 2) * 7, (2 + 8 + 2 + 8 + 2) * 7, 1)  # scaled up to 56 pixels, without a margin
