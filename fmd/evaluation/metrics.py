"""Distances between two sets of feature vectors, in NumPy and float64.

    frechet_distance    |m_a - m_b|^2 + tr(S_a + S_b - 2 (S_a S_b)^(1/2)) of the Gaussians with their moments: FID where
                        the features are InceptionV3's                                            1706.08500
    kernel_distance     squared maximum mean discrepancy, kernel (x.y/d + 1)^3, unbiased: KID      1801.01401
    neighbourhoods      precision and recall (1904.06991), density and coverage (2002.09797), from balls that reach to
                        the k-th nearest neighbour

FID is biased: it falls with the number of samples, so compare at equal numbers only. KID is not.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float64

Features = Float[np.ndarray, "N D"]
Others = Float[np.ndarray, "M D"]
Wide = Float64[np.ndarray, "_ _"]
ROWS = 1000  # rows of a distance matrix held at once
NEIGHBOURS = 5  # k of `neighbourhoods`
SUBSETS, SUBSET_SIZE = 100, 1000  # of `kernel_distance`


@dataclass(frozen=True, eq=False)
class Moments:
    """Count, mean and covariance (divided by count - 1) of feature vectors."""

    count: int
    mean: Float64[np.ndarray, " D"]
    covariance: Float64[np.ndarray, "D D"]


def moments(batches: Iterable[Float[np.ndarray, "_ D"]]) -> Moments:
    """The moments of all rows of all batches, in one pass (Chan et al. 1979). No digits are lost.

    Raises:
        ValueError: for fewer than two rows.
    """
    count, mean, scatter = 0, np.zeros(()), np.zeros(())
    for batch in batches:
        if not len(batch):
            continue
        rows = np.asarray(batch, np.float64)
        batch_mean = rows.mean(axis=0)
        centred = rows - batch_mean
        shift, total = batch_mean - mean, count + len(rows)
        scatter = scatter + centred.T @ centred + np.multiply.outer(shift, shift) * (count * len(rows) / total)
        mean = mean + shift * (len(rows) / total)
        count = total
    if count < 2:
        raise ValueError(f"{count} feature vectors have no covariance; give at least two")
    return Moments(count, mean, scatter / (count - 1))


def frechet_distance(a: Moments, b: Moments) -> float:
    """The Frechet distance of two Gaussians, 0 or more.

    tr (S_a S_b)^(1/2) is the sum of the square roots of the eigenvalues of S_a^(1/2) S_b S_a^(1/2), a symmetric matrix:
    no complex numbers appear, however singular the covariances are.

    Raises:
        ValueError: where the features differ in size, or a covariance cannot be told from so few samples.
    """
    size = len(a.mean)
    if a.mean.shape != b.mean.shape:
        raise ValueError(f"features of size {size} and {len(b.mean)} cannot be compared; use the same ones for both")
    if (fewest := min(a.count, b.count)) <= size:
        raise ValueError(f"{fewest} samples are too few for the covariance of {size} features; draw more than {size}")
    values, vectors = np.linalg.eigh(a.covariance)
    root = (vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T
    cross = np.sqrt(np.maximum(np.linalg.eigvalsh(root @ b.covariance @ root), 0.0)).sum()
    squares = np.sum((a.mean - b.mean) ** 2)
    return float(max(squares + np.trace(a.covariance) + np.trace(b.covariance) - 2.0 * cross, 0.0))


def kernel_distance(
    a: Features, b: Others, *, subsets: int = SUBSETS, subset_size: int = SUBSET_SIZE, seed: int = 0
) -> tuple[float, float]:
    """Mean and standard error of the unbiased squared MMD over random subsets.

    Vectors of a subset are drawn without replacement. Unbiased, so it may fall below 0 for equal distributions. Subsets
    are smaller where there are fewer vectors. They overlap, so what they differ by is not the error: that is the linear
    part of the U-statistic (Hoeffding 1948), 4 var g(a) / N + 4 var h(b) / M with g and h what one vector adds, and the
    choice of subsets on top. For nearly equal distributions it is somewhat too large.
    """
    size = min(subset_size, len(a), len(b))
    if size < 2:
        raise ValueError(f"the kernel distance needs two or more vectors of each kind, not {len(a)} and {len(b)}")
    random = np.random.default_rng(seed)
    parts = np.array([
        _unbiased_mmd(*(random.choice(x, size, replace=False).astype(np.float64) for x in (a, b)))
        for _ in range(subsets)
    ])  # fmt: skip
    value, of_a, of_b = parts.mean(axis=0)
    choice = parts[:, 0].var(ddof=1) / subsets if subsets > 1 else 0.0
    return float(value), float(np.sqrt(4.0 * of_a / len(a) + 4.0 * of_b / len(b) + choice))


def _unbiased_mmd(a: Wide, b: Wide) -> tuple[float, float, float]:
    """The unbiased squared MMD of two sets of equal size, and the variances of what one vector of each adds."""
    n, size = a.shape

    def kernel(x: Wide, y: Wide) -> Float64[np.ndarray, "N M"]:
        """(x_i y_j/size + 1)^3 for all pairs, in few passes, for it is asked for often."""
        k: np.ndarray = x @ y.T
        k /= size
        k += 1.0
        np.multiply(k * k, k, out=k)
        return k

    def among(x: Wide) -> Float64[np.ndarray, " N"]:
        """For each vector the mean of its kernel with the others."""
        found: np.ndarray = (kernel(x, x).sum(axis=1) - (np.sum(x * x, axis=1) / size + 1.0) ** 3) / (n - 1)
        return found

    within_a, within_b, across = among(a), among(b), kernel(a, b)
    of_a, of_b = within_a - across.mean(axis=1), within_b - across.mean(axis=0)
    return float(of_a.mean() + of_b.mean()), float(of_a.var(ddof=1)), float(of_b.var(ddof=1))


def neighbourhoods(real: Features, fake: Others, *, k: int = NEIGHBOURS) -> dict[str, float]:
    """Precision, recall, density and coverage with balls up to the k-th nearest neighbour within each set.

    precision   share of fakes inside some real's ball           recall     share of reals inside some fake's ball
    density     real balls around a fake, over k, on average     coverage   share of reals with a fake in their ball

    Raises:
        ValueError: where a set has no k-th neighbour.
    """
    if (fewest := min(len(real), len(fake))) <= k:
        raise ValueError(f"{fewest} samples have no {k}-th neighbour; give more than {k}")
    real, fake = np.asarray(real, np.float64), np.asarray(fake, np.float64)
    real_radius, fake_radius = (radii(x, k) for x in (real, fake))
    inside_real, inside_fake, nearest = [], [], []
    for rows, squares in squared_distances(real, fake):
        within = squares <= real_radius[rows, None]
        inside_real.append(within.sum(axis=0))
        inside_fake.append((squares <= fake_radius[None]).any(axis=1))
        nearest.append(within.any(axis=1))
    balls = np.sum(inside_real, axis=0)
    return {
        "precision": float((balls > 0).mean()),
        "recall": float(np.concatenate(inside_fake).mean()),
        "density": float(balls.mean() / k),
        "coverage": float(np.concatenate(nearest).mean()),
    }


def radii(x: Features, k: int) -> Float[np.ndarray, " N"]:
    """Squared distance of each row to its k-th nearest other row."""
    return np.concatenate([np.partition(squares, k, axis=1)[:, k] for _, squares in squared_distances(x, x)])


def squared_distances(x: Features, y: Others) -> Iterator[tuple[slice, Float[np.ndarray, "R M"]]]:
    """Squared distances of rows of x to all rows of y, ROWS at a time, after the slice of these rows."""
    norms = np.sum(y**2, axis=1)
    for first in range(0, len(x), ROWS):
        rows = slice(first, min(first + ROWS, len(x)))
        squares = np.sum(x[rows] ** 2, axis=1)[:, None] + norms[None] - 2.0 * (x[rows] @ y.T)
        yield rows, np.maximum(squares, 0.0, out=squares)
