"""A batch split over devices: its draws are those of the whole, and a step that forgets to average is caught."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import P

from fmd.math.pixels import to_unit
from fmd.randomness import step_rng
from fmd.training import step as steps
from fmd.training.step import Batch, train_step
from tests.helpers import toys


def global_draws(recipe, lay, batch):
    """The draws of a global batch that is split as on `lay`: images, labels, noise, times, dropped labels."""

    def drawn(batch):
        rng = step_rng(recipe.seed, jnp.int32(5), batch.index, recipe.batch_size, lay.axis_name)
        found = recipe.method.draw(rng, recipe.augment(rng, to_unit(batch.x)), batch.y)
        return found.x1, found.y, found.x0, found.t, found.untold

    if lay.axis_name is None:
        place = lambda x: jax.device_put(x, lay.batch_sharding(0))  # noqa: E731
        return jax.jit(drawn)(jax.tree.map(place, batch))
    split = jax.tree.map(lambda x: x.reshape(lay.mesh.size, -1, *x.shape[1:]), batch)
    mapped = jax.pmap(
        drawn,
        axis_name=lay.axis_name,
        devices=list(lay.mesh.devices.flat),
    )
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), mapped(split))


@pytest.mark.parametrize("coupling", ["independent", "optimal_transport"])
@pytest.mark.parametrize("name", [("pmap", 4, 1), ("mesh", 8, 2)], ids=str)
def test_draws_are_bit_identical_however_the_batch_is_split(name, coupling):
    config = toys.config(
        path={"coupling": {"name": coupling}, "times": {"name": "logit_normal", "stratified": True}},
        data={"source": "toy", "flip": True, "shift": 1},
    )
    lab = toys.Lab(config, toys.layout("jit", 1))
    images, labels = lab.data.train.images[:16], lab.data.train.labels[:16]
    batch = Batch(images, labels, np.arange(16, dtype=np.int32))
    one = jax.device_get(global_draws(lab.recipe, lab.layout, batch))
    many = jax.device_get(global_draws(lab.recipe, toys.layout(*name), batch))
    for a, b in zip(one, many, strict=True):
        np.testing.assert_array_equal(a, b)
    x1, labels, x0, _, _ = one
    paired = transport_is_optimal_within_classes(x1, x0, labels)
    assert paired == (coupling == "optimal_transport")


def transport_is_optimal_within_classes(x1, x0, y):
    """No exchange of two noises of one class lowers the cost: the pairing saw the whole batch."""
    cost = ((x1[:, None] - x0[None]) ** 2).sum(axis=(2, 3, 4))
    swaps = [
        cost[i, i] + cost[j, j] <= cost[i, j] + cost[j, i] + 1e-3
        for i in range(len(y))
        for j in range(i)
        if y[i] == y[j]
    ]
    return all(swaps)


def shard_mapped(lab, check_vma):
    def body(state, images, labels, index):
        return train_step(state, Batch(images, labels, index), lab.recipe, axis_name="data")

    split = P(("data",))
    return jax.jit(
        jax.shard_map(
            body, mesh=lab.layout.mesh, in_specs=(P(), split, split, split), out_specs=P(), check_vma=check_vma
        )
    )


@pytest.mark.parametrize("parts", [1, 2])
def test_the_step_passes_the_check_of_what_varies_over_devices(parts):
    lab = toys.Lab(toys.config(train={"grad_accumulation": parts}), toys.layout("pmap", 4))
    data = lab.data.train
    arguments = data.images[:16], data.labels[:16], np.arange(16, dtype=np.int32)
    state, _ = shard_mapped(lab, check_vma=True)(lab.start(), *arguments)
    single, _ = jax.jit(lambda s, *b: train_step(s, Batch(*b), lab.recipe))(lab.start(), *arguments)
    for a, b in zip(jax.tree.leaves(single), jax.tree.leaves(state), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_a_step_that_forgets_to_average_is_caught_by_that_check(monkeypatch):
    """pmap itself would train on with the gradients of the first device."""
    lab = toys.Lab(toys.config(), toys.layout("pmap", 4))
    data = lab.data.train
    arguments = lab.start(), data.images[:16], data.labels[:16], np.arange(16, dtype=np.int32)
    monkeypatch.setattr(steps.lax, "pmean", lambda tree, axis_name: tree)
    shard_mapped(lab, check_vma=False).lower(*arguments)
    with pytest.raises(ValueError, match="replicated"):
        shard_mapped(lab, check_vma=True).lower(*arguments)
