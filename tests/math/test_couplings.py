"""Pairings against SciPy, sorted order and the plan's limits; labels stay with their images."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from fmd.math import couplings

KEY = jax.random.key(0)
LABELS = jnp.asarray([0, 1, 0, 2, 1, 0, 0, 3], jnp.int32)  # 3 appears once


def batch(shape=(8, 2, 2, 1), dtype=jnp.float32):
    return tuple(jax.random.normal(k, shape, dtype) for k in jax.random.split(jax.random.key(1)))


def cost(x0, x1):
    return float(((np.asarray(x0, np.float64) - np.asarray(x1, np.float64)) ** 2).sum())


def best_cost(x0, x1, y=None):
    flat0, flat1 = (np.asarray(x, np.float64).reshape(len(x), -1) for x in (x0, x1))
    total = 0.0
    for label in np.unique(y) if y is not None else [None]:
        rows = np.flatnonzero(np.asarray(y) == label) if y is not None else np.arange(len(x0))
        distances = ((flat1[rows][:, None] - flat0[rows][None]) ** 2).sum(-1)
        total += distances[linear_sum_assignment(distances)].sum()
    return total


@pytest.mark.parametrize("y", [None, LABELS], ids=["whole batch", "within classes"])
def test_optimal_transport_is_the_least_cost_pairing(y):
    x0, x1 = batch()
    pair = couplings.get("optimal_transport")
    moved, images, labels = jax.jit(pair)(KEY, x0, x1, y)
    np.testing.assert_allclose(cost(moved, images), best_cost(x0, x1, y), rtol=1e-6)
    assert cost(moved, images) < cost(x0, x1)
    np.testing.assert_array_equal(images, x1)
    assert labels is None if y is None else (labels == y).all()
    rows = {tuple(np.ravel(row)) for row in np.asarray(x0)}
    assert {tuple(np.ravel(row)) for row in np.asarray(moved)} == rows


@pytest.mark.parametrize("name", ["optimal_transport", "sinkhorn"])
def test_within_classes_the_noise_of_a_place_keeps_its_label(name):
    """Place i lends its noise the label y_i: no noise leaves its class, however near an image of another class is."""
    x0, x1 = batch()
    x0 = x0 * 0.01 + x1[::-1]  # the nearest image is mostly of another class
    moved, _, _ = jax.jit(couplings.get(name))(KEY, x0, x1, LABELS)
    source = [int(np.argmin(np.abs(np.asarray(x0) - row).sum((1, 2, 3)))) for row in np.asarray(moved)]
    np.testing.assert_array_equal(LABELS[np.asarray(source)], LABELS)
    np.testing.assert_array_equal(moved[jnp.asarray([3, 7])], x0[jnp.asarray([3, 7])])  # classes of one image


def test_in_one_dimension_optimal_transport_sorts():
    x0, x1 = batch((8, 1))
    moved, images, _ = couplings.get("optimal_transport")(KEY, x0, x1)
    order = np.argsort(np.ravel(images))
    np.testing.assert_array_equal(np.ravel(moved)[order], np.sort(np.ravel(x0)))


def test_optimal_transport_moves_with_a_permutation_of_the_images():
    x0, x1 = batch()
    order = jax.random.permutation(jax.random.key(5), 8)
    pair = jax.jit(couplings.get("optimal_transport"))
    moved, _, _ = pair(KEY, x0, x1, LABELS)
    permuted, _, _ = pair(KEY, x0[order], x1[order], LABELS[order])
    np.testing.assert_array_equal(permuted, moved[order])


@pytest.mark.parametrize("y", [None, LABELS], ids=["whole batch", "within classes"])
def test_sinkhorn_with_little_entropy_is_optimal_transport(y):
    x0, x1 = batch()
    exact, _, _ = couplings.get("optimal_transport")(KEY, x0, x1, y)
    entropic, _, _ = couplings.get("sinkhorn", epsilon=1e-3, iterations=5000)(KEY, x0, x1, y)
    np.testing.assert_array_equal(entropic, exact)


def test_sinkhorn_with_much_entropy_is_uniform():
    x0, x1 = batch()
    plan = np.exp(couplings.log_plan(couplings.transport_cost(x0, x1, None), 1e4, 10))
    np.testing.assert_allclose(plan, np.full((8, 8), 1 / 8), rtol=1e-3)
    plan = np.exp(couplings.log_plan(couplings.transport_cost(x0, x1, LABELS), 1e4, 10))
    same = np.asarray(LABELS)[:, None] == np.asarray(LABELS)[None]
    np.testing.assert_allclose(plan, same / same.sum(1, keepdims=True), rtol=1e-3)


def test_sinkhorn_plan_has_both_marginals_and_draws_follow_it():
    x0, x1 = batch()
    log_plan = couplings.log_plan(couplings.transport_cost(x0, x1, None), 0.1, 200)
    np.testing.assert_allclose(np.exp(log_plan).sum(1), np.ones(8), rtol=1e-5)
    np.testing.assert_allclose(np.exp(log_plan).sum(0), np.ones(8), rtol=1e-3)
    pair = couplings.get("sinkhorn", epsilon=0.1, iterations=200)

    @jax.jit
    def chosen(keys):
        return jax.vmap(lambda key: pair.match(key, couplings.transport_cost(x0, x1, None)))(keys)

    picks = np.asarray(chosen(jax.random.split(jax.random.key(9), 4000)))
    counts = np.stack([np.bincount(picks[:, i], minlength=8) for i in range(8)]) / 4000
    np.testing.assert_allclose(counts, np.exp(log_plan), atol=0.03)


def test_independent_changes_nothing_and_says_so():
    x0, x1 = batch()
    pair = couplings.get("independent")
    moved, images, labels = pair(KEY, x0, x1, LABELS)
    assert moved is x0
    assert images is x1
    assert labels is LABELS
    assert pair.independent
    assert not couplings.get("optimal_transport").independent
    assert not couplings.get("sinkhorn").independent


@pytest.mark.parametrize("name", ["optimal_transport", "sinkhorn"])
def test_bfloat16_noise_comes_back_as_bfloat16_and_a_batch_of_one_is_left(name):
    x0, x1 = batch((5, 3), jnp.bfloat16)
    pair = jax.jit(couplings.get(name))
    moved, _, _ = pair(KEY, x0, x1)
    assert moved.dtype == jnp.bfloat16
    one, _, _ = pair(KEY, x0[:1], x1[:1])
    np.testing.assert_array_equal(one, x0[:1])


@pytest.mark.parametrize(
    ("name", "params", "says"),
    [
        ("ot", {}, "unknown coupling 'ot'; known: .*independent.* optimal_transport.* sinkhorn"),
        ("sinkhorn", {"reg": 1}, "it takes: epsilon, iterations"),
        ("sinkhorn", {"epsilon": 0.0}, "epsilon = 0.0; it must be above 0"),
        ("sinkhorn", {"iterations": 0}, "iterations = 0; it must be 1 or more"),
        ("sinkhorn", {"iterations": 2.5}, "iterations = 2.5; it must be a whole number"),
    ],
)
def test_wrong_names_and_values(name, params, says):
    with pytest.raises(ValueError, match=says):
        couplings.get(name, **params)


def test_shapes_that_do_not_belong_together():
    x0, x1 = batch()
    with pytest.raises(ValueError, match="one shape"):
        couplings.get("independent")(KEY, x0, x1[..., 0])
    with pytest.raises(ValueError, match="labels"):
        couplings.get("independent")(KEY, x0, x1, LABELS[:4])


@pytest.mark.parametrize("name", ["optimal_transport", "sinkhorn"])
def test_in_a_tree_integer_parts_count_as_labels(name):
    x0, x1 = batch()
    pair, other = couplings.get(name), jnp.asarray([0, 0, 0, 0, 1, 1, 1, 1])
    joint = LABELS * 2 + other
    by_label, _, _ = pair(KEY, x0, x1, joint)
    tree = {"label": LABELS, "other": other, "style": jnp.ones((8, 3)), "image": jnp.zeros((8, 2, 2, 1), jnp.int32)}
    by_tree, _, told = pair(KEY, x0, x1, tree)
    np.testing.assert_array_equal(by_tree, by_label)
    assert told is tree
