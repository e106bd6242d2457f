"""Black pixels and the grid of patches, in pictures whose figures are known."""

import numpy as np
import pytest

from fmd.evaluation import background


def test_the_share_of_black_is_counted():
    images = np.zeros((2, 4, 4, 1), np.uint8)
    images[0, :2] = 1
    assert background.black_share(images) == 24 / 32


@pytest.mark.parametrize("shape", [(8, 8, 1), (7, 9, 3)])
@pytest.mark.parametrize("axis", ["rows", "columns", "both"])
def test_a_grid_has_the_energy_of_its_amplitude(shape, axis):
    i, j = np.indices(shape[:2])
    sign = 1 - 2 * ({"rows": i, "columns": j, "both": i + j}[axis] % 2)
    images = np.broadcast_to((100 + 6 * sign)[None, :, :, None], (5, *shape)).astype(np.uint8)
    assert background.grid_energy(images) == pytest.approx(36, rel=1e-5)
    assert background.grid_energy(np.full((5, *shape), 80, np.uint8)) == pytest.approx(0, abs=1e-6)


def test_a_veil_and_a_grid_are_seen_beside_real_images():
    random = np.random.default_rng(0)
    real = np.where(random.random((50, 8, 8, 1)) < 0.8, 0, 200).astype(np.uint8)
    veiled = np.maximum(real, 3 * (np.indices((8, 8)).sum(0) % 2)[None, :, :, None].astype(np.uint8))
    found = background.measure(veiled, real)
    assert found["black_share_of_real"] == pytest.approx(0.8, abs=0.02)
    assert found["black_share"] == pytest.approx(found["black_share_of_real"] / 2, abs=0.02)
    grid = np.broadcast_to(3 * (np.indices((8, 8)).sum(0) % 2)[None, :, :, None], real.shape).astype(np.uint8)
    assert background.measure(grid, real)["grid_energy"] == pytest.approx(1.5**2)
