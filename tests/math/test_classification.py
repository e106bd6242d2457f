"""Classes of two normal distributions against Bayes, and scores of anomalies."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fmd.math import anomaly, classification, schedules
from tests.helpers.oracles import Mixture, gaussian

KEY = jax.random.key(0)
LINEAR = schedules.get("linear")
MEANS, STDS = np.asarray([[-0.5, 0.2], [0.6, 0.0], [3.0, 3.0]]), np.asarray([0.4, 0.7, 0.3])
X = jnp.asarray([[-0.6, 0.1], [0.1, 0.2], [0.9, -0.3], [0.0, 1.0]])
LABELS = jnp.arange(3)


def field(schedule=LINEAR):
    """The field of class y = args [B]; the classes are wide, narrow, and far away."""
    parts = [gaussian(mean, std**2 * np.eye(2)).field(schedule) for mean, std in zip(MEANS, STDS, strict=True)]

    def told(t, x, args):
        velocities = jnp.stack([part(t, x) for part in parts], axis=1)
        return jnp.take_along_axis(velocities, args[:, None, None], axis=1)[:, 0]

    return told


def bayes(prior=(1.0, 1.0, 1.0)):
    mixture = Mixture(np.asarray(prior) / np.sum(prior), MEANS, STDS[:, None, None] ** 2 * np.eye(2))
    whole = mixture.log_density(LINEAR, 1.0, X)
    each = [mixture.only(k).log_density(LINEAR, 1.0, X) + np.log(mixture.weights[k]) - whole for k in range(3)]
    return np.stack(each, axis=1)


def classify(draws, **options):
    return classification.by_errors(
        field(options.get("schedule") or LINEAR), X, KEY, labels=LABELS, draws=draws, **options
    )


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_agrees_with_bayes_as_the_draws_grow(schedule):
    errors = []
    for draws in (30, 3000):
        found = np.exp(classify(draws, schedule=schedules.get(schedule)))
        np.testing.assert_allclose(found.sum(1), 1, rtol=1e-5)
        errors.append(np.abs(found - np.exp(bayes())).max())
    assert errors[1] < 0.04 < errors[0] * 2, errors


def test_prior_and_exact_by_likelihood():
    prior = np.asarray([0.2, 0.7, 0.1])
    options = {"labels": LABELS, "log_prior": jnp.log(jnp.asarray(prior, jnp.float32))}
    found = classification.by_likelihood(field(), X, solver="rk4", steps=60, **options)
    np.testing.assert_allclose(np.exp(found), np.exp(bayes(prior)), atol=2e-3)
    estimated = classification.by_errors(field(), X, KEY, draws=3000, **options)
    np.testing.assert_allclose(np.exp(estimated), np.exp(bayes(prior)), atol=0.05)


def test_hopeless_classes_are_dropped_and_keep_their_distance():
    whole, dropped = classify(200), classify(200, first=40, keep=2)
    early = classify(200, first=40, keep=3)
    np.testing.assert_allclose(early, whole, rtol=1e-4)  # nobody is dropped: the same draws
    np.testing.assert_allclose(dropped[:, :2], whole[:, :2], atol=1e-3)
    assert (dropped[:, 2] < -5).all()
    alone = classify(200, first=40, keep=1)
    np.testing.assert_allclose(alone, whole, rtol=0.1, atol=1.5)  # the gap after 40 draws, not that of other draws
    asked = []
    counted = lambda t, x, args: asked.append(x.shape[0]) or -x  # noqa: E731
    classification.by_errors(counted, X, KEY, labels=LABELS, draws=8, first=2, keep=1)
    assert sorted(set(asked)) == [4, 12]  # rows of a call: all classes, then one


@pytest.mark.parametrize(
    ("weighting", "std", "mean"), [("velocity", 4.0, 1), ("precision", 4.0, 17 / 48), ("precision", 1.0, 2 / 3)]
)
def test_weighted_errors_of_constant_fields(weighting, std, mean):
    """By hand: the mean weight, over t that of t^2 + (1 - t)^2/s^2 for "precision", times the mean of |v - u|^2."""
    constant = lambda t, x, args: jnp.broadcast_to(args[:, None].astype(x.dtype), x.shape)  # noqa: E731
    found = classification.by_errors(constant, X, KEY, labels=LABELS, draws=4000, weighting=weighting, data_std=std)
    # |y - u|^2 - |0 - u|^2 = 2 y^2 - 2 y sum(u), E u = x1
    expected = -(2 * np.arange(3) ** 2 - 2 * np.arange(3) * np.asarray(X).sum(1, keepdims=True))
    np.testing.assert_allclose(found - found[:, :1], mean * expected, atol=0.15)


@pytest.mark.parametrize("schedule", ["linear", "cosine", "vp"])
def test_precision_is_that_of_the_velocity_given_the_state(schedule):
    """For x1 ~ N(0, s^2) the covariance of (x_t, u) is known, and the variance of u given x_t with it."""
    c, std = schedules.get(schedule).at(jnp.asarray([0.1, 0.5, 0.8])), 1.5
    state, velocity, both = (
        a * b * std**2 + d * e
        for a, b, d, e in (
            (c.alpha, c.alpha, c.sigma, c.sigma),
            (c.d_alpha, c.d_alpha, c.d_sigma, c.d_sigma),
            (c.alpha, c.d_alpha, c.sigma, c.d_sigma),
        )
    )
    found = classification.weight(c, "precision", std)
    np.testing.assert_allclose(found, 1 / (velocity - both**2 / state), rtol=1e-4)


def test_draws_do_not_depend_on_the_batch():
    part = classification.by_errors(field(), X[2:], KEY, labels=LABELS, draws=7, indices=jnp.asarray([2, 3]))
    np.testing.assert_allclose(classify(7)[2:], part, rtol=1e-4)


def test_one_line_for_what_is_wrong():
    for options in ({"draws": 0}, {"draws": 4, "first": 5}, {"draws": 4, "keep": 4}):
        with pytest.raises(ValueError, match="draws at least 1, first in 1 to draws, keep in 1 to 3"):
            classify(**options)
    with pytest.raises(ValueError, match="weighting='loss' must be one of likelihood, velocity, precision"):
        classify(1, weighting="loss")
    with pytest.raises(ValueError, match="data_std=0 must be above 0"):
        classify(1, weighting="precision", data_std=0)
    with pytest.raises(ValueError, match="draws=0 must be at least 1"):
        anomaly.reconstruction(field(), X, KEY, draws=0)
    with pytest.raises(ValueError, match="one or more finite scores"):
        anomaly.auroc(np.ones(2), np.asarray([np.nan]))


def test_scores_of_anomalies():
    std, start = 0.5, 0.4
    ordinary = gaussian([0.0], [[std**2]])
    x = jnp.asarray([[0.0], [4.0]])
    found = anomaly.reconstruction(ordinary.field(LINEAR), x, KEY, start=start, draws=4000, steps=40)
    k = std / np.sqrt(start**2 * std**2 + (1 - start) ** 2)  # of x, k start stays, and k (1 - start) of the noise
    np.testing.assert_allclose(found, ((1 - k * start) * x[:, 0]) ** 2 + (k * (1 - start)) ** 2, rtol=0.06)
    np.testing.assert_allclose(anomaly.typicality(jnp.asarray([1.0, 5.0]), jnp.asarray([2.0, 4.0])), [2.0, 2.0])
    assert anomaly.auroc(np.asarray([1.0, 2.0]), np.asarray([2.0, 3.0])) == 0.875
    assert anomaly.auroc(np.asarray([1.0, 1.0]), np.asarray([1.0])) == 0.5


@pytest.mark.parametrize("name", ["linear", "cosine"])
def test_residuals_of_a_normal_distribution(name):
    """v = g x, so that v - u = (g alpha - alpha') x1 + (g sigma - sigma') x0."""
    schedule, std, times = schedules.get(name), 0.5, (0.2, 0.5, 0.9)
    x = jnp.asarray([[0.0], [2.0]])
    found = anomaly.residuals(
        gaussian([0.0], [[std**2]]).field(schedule), x, KEY, times=times, draws=4000, schedule=schedule
    )
    for column, t in zip(found.T, times, strict=True):
        c = schedule.at(jnp.asarray(t))
        g = (c.alpha * c.d_alpha * std**2 + c.sigma * c.d_sigma) / (c.alpha**2 * std**2 + c.sigma**2)
        expected = ((g * c.alpha - c.d_alpha) * x[:, 0]) ** 2 + (g * c.sigma - c.d_sigma) ** 2
        np.testing.assert_allclose(column, expected, rtol=0.06)


def test_the_profile_is_the_mahalanobis_distance_of_logs():
    logs = np.asarray([[3.0, 0.0], [-3.0, 0.0], [0.0, 1.0], [0.0, -1.0]]) + 5.0  # covariance diag(6, 2/3)
    found = anomaly.profile(np.exp([[5.0, 5.0], [11.0, 5.0], [5.0, 3.0], [11.0, 3.0]]), np.exp(logs))
    np.testing.assert_allclose(found, np.sqrt([0.0, 6.0, 6.0, 12.0]), atol=1e-9)
    with pytest.raises(ValueError, match="profile needs more than 2 ordinary images, not 2"):
        anomaly.profile(np.ones((1, 2)), np.ones((2, 2)))
    for options in ({"draws": 0}, {"times": (0.0,)}, {"times": ()}):
        with pytest.raises(ValueError, match=r"must be at least 1, and times=.* inside \(0, 1\)"):
            anomaly.residuals(field(), X, KEY, **options)
