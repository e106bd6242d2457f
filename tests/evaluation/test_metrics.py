"""Distances of feature vectors against SciPy, brute force and closed forms."""

import numpy as np
import pytest
import scipy.linalg

from fmd.evaluation.metrics import (
    ROWS,
    Moments,
    frechet_distance,
    kernel_distance,
    moments,
    neighbourhoods,
    squared_distances,
)


def vectors(count, size, seed=0, shift=0.0):
    random = np.random.default_rng(seed)
    mixing = random.normal(size=(size, size))
    return (random.normal(size=(count, size)) @ mixing + shift).astype(np.float32)


def test_moments_of_uneven_batches_are_those_of_the_whole():
    x = vectors(103, 5, shift=1000.0)  # a mean far from zero, where E[x^2] - E[x]^2 would lose its digits
    whole = moments([x[:40], x[40:40], x[40:47], x[47:]])
    assert whole.count == 103
    np.testing.assert_allclose(whole.mean, x.astype(np.float64).mean(0), rtol=1e-13)
    np.testing.assert_allclose(whole.covariance, np.cov(x.astype(np.float64), rowvar=False), rtol=1e-9)


def test_frechet_distance_is_the_formula_with_a_matrix_square_root():
    a, b = moments([vectors(200, 16, 1)]), moments([vectors(300, 16, 2, shift=0.5)])
    root = scipy.linalg.sqrtm(a.covariance @ b.covariance).real
    expected = np.sum((a.mean - b.mean) ** 2) + np.trace(a.covariance + b.covariance - 2 * root)
    assert abs(frechet_distance(a, b) - expected) < 1e-6 * expected
    assert frechet_distance(a, b) == pytest.approx(frechet_distance(b, a), rel=1e-9)


def test_frechet_distance_of_commuting_gaussians():
    """Diagonal covariances: sum of squared differences of means and of standard deviations."""
    a = Moments(100, np.array([0.0, 1.0, 2.0]), np.diag([4.0, 1.0, 0.0]))
    b = Moments(100, np.array([1.0, 1.0, 0.0]), np.diag([1.0, 9.0, 0.0]))
    assert frechet_distance(a, b) == pytest.approx(1 + 4 + 1 + 4, abs=1e-9)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-9)


def test_kernel_distance_of_the_whole_sets_is_the_unbiased_sum():
    a, b = vectors(12, 4, 3).astype(np.float64), vectors(12, 4, 4).astype(np.float64)
    kernel = lambda x, y: (np.dot(x, y) / 4 + 1) ** 3  # noqa: E731
    pairs = [(i, j) for i in range(12) for j in range(12) if i != j]
    within = np.mean([kernel(a[i], a[j]) + kernel(b[i], b[j]) for i, j in pairs])
    expected = within - 2 * np.mean([kernel(x, y) for x in a for y in b])
    value, _ = kernel_distance(a, b, subsets=3, subset_size=12)
    assert value == pytest.approx(expected, rel=1e-9)


def test_kernel_distance_of_equal_distributions_is_zero_within_its_error():
    x = np.random.default_rng(0).normal(size=(4000, 8))
    value, error = kernel_distance(x[:2000], x[2000:], subsets=50, subset_size=200)
    assert error > 0
    assert abs(value) < 3 * error
    far, _ = kernel_distance(x[:2000], x[2000:] + 1, subsets=50, subset_size=200)
    assert far > 20 * error


@pytest.mark.parametrize("count", [100, 400])
def test_the_standard_error_of_a_kernel_distance_is_that_of_other_samples(count):
    random = np.random.default_rng(1)
    draws = [(random.normal(size=(200, 3)), random.normal(size=(count, 3)) * 1.3 + 0.5) for _ in range(60)]
    found = np.array([kernel_distance(a, b, subsets=20, subset_size=100) for a, b in draws])
    assert np.sqrt(np.mean(found[:, 1] ** 2)) == pytest.approx(found[:, 0].std(ddof=1), rel=0.25)


def test_neighbourhoods_by_brute_force():
    random = np.random.default_rng(1)
    real, fake, k = random.normal(size=(30, 3)), random.normal(size=(25, 3)) * 1.3 + 0.5, 3

    def radius(x, i):
        return np.sort([np.linalg.norm(x[i] - y) for y in x])[k]

    in_real = np.array([[np.linalg.norm(r - f) <= radius(real, i) for f in fake] for i, r in enumerate(real)])
    in_fake = np.array([[np.linalg.norm(r - f) <= radius(fake, j) for j, f in enumerate(fake)] for r in real])
    found = neighbourhoods(real, fake, k=k)
    assert found["precision"] == in_real.any(axis=0).mean()
    assert found["recall"] == in_fake.any(axis=1).mean()
    assert found["density"] == pytest.approx(in_real.sum(axis=0).mean() / k)
    assert found["coverage"] == in_real.any(axis=1).mean()


def test_neighbourhoods_of_a_collapsed_set():
    """One sharp mode of two: precise, without recall, and half covered."""
    real = np.random.default_rng(2).normal(size=(200, 2)) + np.repeat([[0.0, 0], [50, 0]], 100, axis=0)
    found = neighbourhoods(real, real[:1] + 1e-3 * np.random.default_rng(3).normal(size=(50, 2)))
    assert found["precision"] == 1
    assert found["recall"] < 0.05
    assert found["coverage"] < 0.1


def test_distances_in_parts():
    x, y = vectors(ROWS + 7, 3, 5).astype(np.float64), vectors(9, 3, 6).astype(np.float64)
    exact = ((x[:, None] - y[None]) ** 2).sum(-1)
    parts = list(squared_distances(x, y))
    assert [rows.stop - rows.start for rows, _ in parts] == [ROWS, 7]
    np.testing.assert_allclose(np.concatenate([squares for _, squares in parts]), exact, atol=1e-9)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: moments([vectors(1, 3)]), "1 feature vectors have no covariance"),
        (lambda: frechet_distance(moments([vectors(9, 3)]), moments([vectors(9, 4)])), "size 3 and 4"),
        (lambda: frechet_distance(moments([vectors(9, 9)]), moments([vectors(99, 9)])), "9 samples are too few"),
        (lambda: neighbourhoods(vectors(9, 3), vectors(5, 3)), "no 5-th neighbour"),
        (lambda: kernel_distance(vectors(1, 3), vectors(5, 3)), "two or more"),
    ],
)
def test_too_few_samples(call, message):
    with pytest.raises(ValueError, match=message):
        call()
