"""Weights taken over by name: what fits, what is new, what was reshaped, what is left out."""

import numpy as np
import pytest

from fmd.checkpoints.fitting import fit


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
