"""Weights taken over by name: what fits, what is new, what was reshaped, what is left out."""

import numpy as np
import pytest

from fmd.checkpoints.fitting import Rows, fit


def test_what_fits_is_taken_and_the_rest_is_named():
    wanted = {
        "conv": {"kernel": np.zeros((3, 2)), "bias": np.zeros(2)},
        "label": np.zeros((11, 4)),
        "step": np.zeros(6),
    }
    found = {"conv": {"kernel": np.ones((3, 2)), "bias": np.ones(2)}, "label": np.ones((9, 4)), "head": np.ones(5)}
    fitted = fit(wanted, found)
    np.testing.assert_array_equal(fitted.params["conv"]["kernel"], 1)
    np.testing.assert_array_equal(fitted.params["label"], 0)
    np.testing.assert_array_equal(fitted.params["step"], 0)
    assert fitted.share == pytest.approx(8 / 58)
    assert (fitted.new, fitted.reshaped, fitted.dropped) == (["step"], ["label [9, 4] -> [11, 4]"], ["head"])


def test_equal_trees_fit_whole_and_nothing_fits_nothing():
    tree = {"a": np.arange(4.0)}
    fitted = fit({"a": np.zeros(4)}, tree)
    assert (fitted.share, fitted.new, fitted.reshaped, fitted.dropped) == (1.0, [], [], [])
    assert fit({"b": np.zeros(4)}, tree).share == 0.0


@pytest.mark.parametrize(("before", "after"), [(3, 5), (5, 3)])
@pytest.mark.parametrize("more", [0, 1])
def test_a_table_for_other_classes_keeps_its_rows_and_its_last_ones(before, after, more):
    """Class i keeps its row, the null label the last one; new classes have the rows that they were drawn with."""
    found = {"label": {"table": np.arange(2.0 * (before + more)).reshape(-1, 2)}, "other": np.ones(4)}
    wanted = {"label": {"table": np.full((after + more, 2), -1.0)}, "other": np.zeros(4)}
    fitted = fit(wanted, found, [Rows("label/", before, after, more)])
    old, new = found["label"]["table"], fitted.params["label"]["table"]
    np.testing.assert_array_equal(new[:3], old[:3])
    np.testing.assert_array_equal(new[3:after], -1)
    np.testing.assert_array_equal(new[after:], old[before:])
    assert fitted.resized == [f"label/table [{before + more}, 2] -> [{after + more}, 2]"]
    assert (fitted.new, fitted.reshaped, fitted.dropped) == ([], [], [])
    assert fitted.drawn == (["label/table"] if after > before else [])
    assert fitted.share == pytest.approx((2 * (3 + more) + 4) / (2 * (after + more) + 4))


@pytest.mark.parametrize(
    ("shape", "rows"),
    [
        ((4, 3), Rows("label/", 3, 5, 1)),  # of another width, too
        ((5, 2), Rows("label/", 3, 5, 1)),  # of other rows than there are classes
        ((4, 2), Rows("style/", 3, 5, 1)),  # of another part
    ],
)
def test_other_tables_are_new(shape, rows):
    fitted = fit({"label": {"table": np.zeros((6, 2))}}, {"label": {"table": np.ones(shape)}}, [rows])
    np.testing.assert_array_equal(fitted.params["label"]["table"], 0)
    assert (len(fitted.reshaped), fitted.resized, fitted.share) == (1, [], 0.0)
