"""Figures: the right size, the same every time, ink where the data is, and no global state of matplotlib."""

import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("matplotlib")

from fmd.pictures import plots


def to_the_right(t, x):
    return np.stack([np.ones(len(x)), np.zeros(len(x))], 1) * t


def ink(picture):
    """[H, W] bool: what is not white."""
    return (picture < 250).any(-1)


def coloured(picture):
    """[H, W] bool: pixels with a colour of their own, which axes and letters do not have."""
    return np.ptp(picture.astype(int), -1) > 60


def test_a_field_is_asked_once_on_a_grid_at_the_time():
    asked = []

    def field(t, x):
        asked.append((t, x))
        return x

    picture = plots.vector_field(field, 0.25, limits=(-1, 2), arrows=4, side=300)
    ((t, x),) = asked
    assert (picture.shape, picture.dtype) == ((300, 300, 3), np.uint8)
    assert t == 0.25
    assert x.dtype == np.float32
    np.testing.assert_array_equal(np.unique(x, axis=0), [[a, b] for a in (-1, 0, 1, 2) for b in (-1, 0, 1, 2)])


def test_arrows_point_along_the_field():
    """Of arrows all along one axis the ink is longer in that axis, and turning the field turns the picture."""
    across = coloured(plots.vector_field(to_the_right, 1.0, arrows=3))
    up = coloured(plots.vector_field(lambda t, x: to_the_right(t, x)[:, ::-1], 1.0, arrows=3))
    assert across.any(0).sum() > 2 * across.any(1).sum()
    assert up.any(1).sum() > 2 * up.any(0).sum()


def test_with_a_speed_given_pictures_compare():
    """By default the fastest arrow of any field reaches its neighbour; with a speed slower ones are shorter."""
    fast, slow = (coloured(plots.vector_field(to_the_right, t, arrows=3, title="")) for t in (2.0, 1.0))
    np.testing.assert_array_equal(fast, slow)
    full, half = (coloured(plots.vector_field(to_the_right, t, arrows=3, speed=2)).any(0).sum() for t in (2.0, 1.0))
    assert full > 1.5 * half


def test_particles_are_where_they_are():
    """In the upper right quarter, and moved with the limits."""
    still = lambda t, x: 0 * x  # noqa: E731
    without, with_particles = (
        plots.vector_field(still, 0.0, particles=p, limits=(-2, 2)) for p in (None, np.full((1, 2), 1.0))
    )
    rows, columns = (with_particles != without).any(-1).nonzero()
    assert abs(columns.mean() / 480 - 0.75) < 0.06
    assert abs(rows.mean() / 480 - 0.25) < 0.06
    paths = plots.vector_field(still, 0.0, paths=np.array([[[-1.0, 0.0]], [[1.0, 0.0]]]), limits=(-2, 2))
    rows, columns = (paths != without).any(-1).nonzero()
    assert np.ptp(columns) > 0.4 * 480
    assert np.ptp(rows) < 5


def test_a_falling_line_falls():
    picture = plots.loss_curves({"loss": [(i, 15.0 - i) for i in range(10)]}, width=500, height=300)
    assert picture.shape == (300, 500, 3)
    rows, columns = coloured(picture).nonzero()
    assert np.corrcoef(rows, columns)[0, 1] > 0.99  # rows count downwards


def test_an_exponential_is_straight_on_the_logarithmic_axis_it_gets():
    falling = {"a": [(i, 10.0 ** (-i / 10)) for i in range(40)], "b": [(0, None), (20, float("nan")), (39, 1e-4)]}
    rows, columns = coloured(plots.loss_curves({"a": falling["a"]})).nonzero()
    fit = np.polyfit(columns, rows, 1)
    assert np.abs(np.polyval(fit, columns) - rows).max() < 4
    assert ink(plots.loss_curves(falling)).sum() > ink(plots.loss_curves({"a": falling["a"]})).sum()  # the legend


def test_the_same_picture_every_time_and_no_global_state():
    """No pyplot, so no window, no backend and no figure that nobody closes."""
    first, second = (plots.vector_field(to_the_right, 1.0) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    code = "import sys, numpy as np; from fmd.pictures import plots; assert 'matplotlib' not in sys.modules; "
    code += "plots.loss_curves({'a': [(0, 1), (1, 2)]}); assert 'matplotlib.pyplot' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_nothing_to_draw_is_said():
    with pytest.raises(ValueError, match="no value of a is a finite number"):
        plots.loss_curves({"a": [(0, None), (1, float("inf"))]})
    with pytest.raises(ValueError, match="no value of no series"):
        plots.loss_curves({})
    with pytest.raises(ValueError, match="2 or more per row"):
        plots.vector_field(to_the_right, 0.0, arrows=1)
    assert ink(plots.vector_field(lambda t, x: np.nan * x, 0.0)).any()  # a field that is nowhere finite has no arrows


def test_a_sweep_is_a_bar_per_point_and_a_line_per_share():
    rows = [{"weight": str(w), "fid": fid, "recall": 0.5, "precision": None} for w, fid in ((1, 4.0), (2, 1.0))]
    picture = plots.sweep("weight", rows, width=400, height=300)
    assert picture.shape == (300, 400, 3)
    grey = (picture == 204).all(-1)  # the bars
    left, right = grey[:, :200].sum(), grey[:, 200:].sum()
    assert 3 < left / right < 5
    assert coloured(picture).any()
    without = plots.sweep("weight", [{**row, "recall": None} for row in rows], width=400, height=300)
    assert not coloured(without).any()
