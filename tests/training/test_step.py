"""The step on one device: golden numbers, accumulation, precision, broken gradients, the sums of the log."""

import dataclasses
import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fmd.devices import make_layout
from fmd.math.pixels import to_unit
from fmd.models.network import ModelNetwork
from fmd.models.registry import register_model
from fmd.randomness import step_rng
from fmd.training.augment import Augment
from fmd.training.state import TIME_BINS
from fmd.training.step import Batch, train_step
from tests.helpers import goldens, toys

ONE = make_layout("jit", devices=jax.devices()[:1])


@pytest.fixture(scope="module")
def lab():
    return toys.Lab(toys.config(), ONE)


def first_batch(lab, start=0):
    feed = jax.tree.map(lambda x: x[0], next(lab.feed(start)))
    images, labels = lab.data.train.images[feed["rows"]], lab.data.train.labels[feed["rows"]]
    return Batch(jnp.asarray(images), jnp.asarray(labels), feed["index"])


def draw(step, batch, recipe):
    """(what the method draws in a step, the augmented images)."""
    rng = step_rng(recipe.seed, jnp.int32(step), batch.index, recipe.batch_size)
    x1 = recipe.augment(rng, to_unit(batch.x))
    return recipe.method.draw(rng, x1, batch.y), x1


def with_dropout(recipe, share):
    return dataclasses.replace(recipe, method=dataclasses.replace(recipe.method, label_dropout=share))


@pytest.mark.parametrize("method", goldens.METHODS)
def test_golden_numbers_of_one_step(method):
    found = goldens.first_step(method)
    assert found == pytest.approx(goldens.stored(method), rel=1e-5), goldens.MEANING


def test_the_step_is_the_loss_of_its_draws(lab):
    """The window's loss, its time bins and the gradient, recomputed from the draws alone."""
    before = lab.start()
    drawn, _ = draw(before.step, first_batch(lab), lab.recipe)
    network = ModelNetwork(lab.model.apply, before.params, toys.CLASSES)
    loss = lab.recipe.method.loss(network, drawn).value
    _, report = lab.run(1)
    assert float(report.window.loss) == pytest.approx(float(loss.mean()), rel=1e-5)
    bins = np.minimum((np.asarray(drawn.t) * TIME_BINS).astype(int), TIME_BINS - 1)
    np.testing.assert_array_equal(report.window.bin_count, np.bincount(bins, minlength=TIME_BINS))
    np.testing.assert_allclose(
        report.window.bin_loss, np.bincount(bins, np.asarray(loss), minlength=TIME_BINS), rtol=1e-5
    )


def test_every_use_and_every_step_has_random_numbers_of_its_own(lab):
    recipe = with_dropout(lab.recipe, 0.25)
    count = 4000
    batch = Batch(jnp.zeros((count, 2, 2, 1), jnp.uint8), jnp.zeros(count, jnp.int32), jnp.arange(count))
    draws = [draw(step, batch, recipe)[0] for step in (0, 1)]
    columns = [np.asarray(c) for d in draws for c in (*jnp.moveaxis(d.x0.reshape(count, 4), 1, 0), d.untold * 1.0)]
    correlation = np.corrcoef(columns) - np.eye(len(columns))
    assert np.abs(correlation).max() < 0.08  # 5 standard errors of independent columns
    assert abs(float(draws[0].untold.mean()) - 0.25) < 5 * np.sqrt(0.25 * 0.75 / count)
    assert abs(float(draws[0].x0.std()) - 1) < 0.03


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_label_dropout_of_none_and_of_all(lab, share):
    recipe = with_dropout(lab.recipe, share)
    assert float(draw(0, first_batch(lab), recipe)[0].untold.mean()) == share


def test_stratified_times_put_one_example_into_each_part(lab):
    t = np.asarray(draw(5, first_batch(lab), lab.recipe)[0].t)
    np.testing.assert_array_equal(np.sort((t * 16).astype(int)), np.arange(16))


def test_mirroring_and_moving_are_drawn_per_example_and_apart(lab):
    recipe = dataclasses.replace(lab.recipe, augment=Augment(flip=True, shift=1))
    count = 600
    picture = np.zeros((5, 5, 1), np.uint8)
    picture[2, 1] = 255  # off the middle, so that its place gives away both draws: column 1 + dx or 3 + dx
    batch = Batch(jnp.asarray(np.tile(picture, (count, 1, 1, 1))), jnp.zeros(count, jnp.int32), jnp.arange(count))
    images = np.asarray(draw(0, batch, recipe)[1])
    places = np.array([np.unravel_index(image.argmax(), (5, 5)) for image in images])
    counts = np.zeros((5, 5), int)
    np.add.at(counts, tuple(places.T), 1)
    # Rows 1, 2, 3 alike; columns 0, 1, 3, 4 once (1/6 each) and column 2 by both ways (1/3).
    expected = count * np.outer([0, 1, 1, 1, 0], [1, 1, 2, 1, 1]) / 18
    assert np.abs(counts - expected).max() < 5 * np.sqrt(count / 18 * 2)
    assert (counts[expected == 0] == 0).all()


def test_accumulated_parts_give_the_gradient_of_the_whole_batch(lab):
    whole, report = lab.run(3)
    split, split_report = toys.Lab(toys.config(train={"grad_accumulation": 4}), ONE).run(3)
    for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(split), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(report.window.bin_loss, split_report.window.bin_loss, rtol=1e-5)


def test_several_steps_in_one_dispatch_are_the_same_steps(lab):
    one, _ = lab.run(12)
    settings = {"log": {"every": 3, "eval_every": 0, "samples_every": 0}, "checkpoint": {"every": 3}}
    three, _ = toys.Lab(toys.config(train={"steps_per_dispatch": 3}, **settings), ONE).run(4)
    assert int(three.step) == 12
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(three), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("settings", [{"grad_accumulation": 4}, {"steps_per_dispatch": 2}], ids=str)
def test_on_a_cpu_no_gradient_is_left_in_a_loop(settings):
    """There the convolutions of a gradient are 20 to 50 times slower: see fmd.devices."""
    intervals = {"log": {"every": 2, "eval_every": 0, "samples_every": 0}, "checkpoint": {"every": 2}}
    lab = toys.Lab(toys.config(train=settings, **intervals), ONE)
    jaxpr = str(lab.program.trace(lab.start(), lab.resident, next(lab.feed())).jaxpr)
    loops = re.findall(r"scan\[.*?\blength=(\d+).*?\bunroll=(\d+)", jaxpr, re.DOTALL)
    (count,) = settings.values()
    assert (str(count), str(count)) in loops
    assert (str(count), "1") not in loops


def test_bfloat16_is_for_the_network_alone():
    unet = {"name": "unet", "base_channels": 8, "channel_multipliers": [1], "num_res_blocks": 1, "embedding_dim": 16}
    lab = toys.Lab(toys.config(model={**unet, "dtype": "bfloat16", "remat": True, "dropout": 0.1}), ONE)
    state, report = lab.run(2)
    floats = [leaf for leaf in jax.tree.leaves((state, report)) if jnp.issubdtype(leaf.dtype, jnp.floating)]
    assert {leaf.dtype for leaf in floats} == {jnp.dtype("float32")}
    assert np.isfinite(float(report.window.loss))
    assert "bf16" in lab.program.lower(state, lab.resident, next(lab.feed())).as_text()


def breaks_on_label_three(lab, recipe):
    """The recipe with a network that is not a number where a label is 3 in an example whose index is 0."""

    def apply(variables, x, t, y, **kwargs):
        return lab.model.apply(variables, x, t, y, **kwargs) * jnp.where(jnp.any(y == 3), jnp.nan, 1.0)

    return dataclasses.replace(with_dropout(recipe, 0.0), apply=apply)


def batch_with_labels(lab, labels):
    batch = first_batch(lab)
    return batch.replace(y=jnp.array(labels * 4, jnp.int32))


@pytest.fixture(scope="module")
def broken_steps(lab):
    """States after a good, a bad and a good step: {skip: [state, state, state]}, and the reports."""
    found = {}
    for skip in (False, True):
        recipe = breaks_on_label_three(lab, dataclasses.replace(lab.recipe, skip_nonfinite=skip))
        step = jax.jit(lambda state, batch, recipe=recipe: train_step(state, batch, recipe))
        state, steps = lab.start(), []
        for labels in ([0, 1, 2, 0], [0, 1, 2, 3], [0, 1, 2, 0]):
            state, report = step(state, batch_with_labels(lab, labels))
            steps.append((state, report))
        found[skip] = steps
    return found


def test_a_step_that_is_not_finite_is_named(broken_steps):
    good, bad, after = (report for _, report in broken_steps[False])
    assert (int(good.first_bad), int(bad.first_bad), int(after.first_bad)) == (-1, 2, 2)
    assert not np.isfinite(float(bad.window.loss))


def test_a_step_that_is_not_finite_is_left_out_and_counted(broken_steps):
    (first, _), (second, report), (third, last) = broken_steps[True]
    for part in ("params", "opt_state", "ema"):
        before, after = jax.tree.leaves(getattr(first, part)), jax.tree.leaves(getattr(second, part))
        assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))
    assert (int(second.step), int(second.skipped), int(third.skipped)) == (2, 1, 1)
    assert float(report.window.steps) == 1.0  # the bad step is not in the sums
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((third, last)))
    assert not np.array_equal(jax.tree.leaves(second.params)[0], jax.tree.leaves(third.params)[0])


def test_the_window_sums_start_again_after_each_line(lab):
    state, counts = None, []
    for _ in range(7):
        state, report = lab.run(1, state)
        counts.append((float(report.window.steps), float(report.window.bin_count.sum())))
    assert counts == [(1, 16), (2, 32), (3, 48), (1, 16), (2, 32), (3, 48), (1, 16)]


def test_dropout_inside_the_network_is_a_function_of_the_step(lab):
    dropping = toys.Lab(toys.config(model={"name": "toy", "dropout": 0.5}), ONE)
    first, _ = dropping.run(2)
    again, _ = dropping.run(2)
    plain, _ = lab.run(2)
    same = [np.array_equal(a, b) for a, b in zip(*map(jax.tree.leaves, (first.params, again.params)), strict=True)]
    other = [np.array_equal(a, b) for a, b in zip(*map(jax.tree.leaves, (first.params, plain.params)), strict=True)]
    assert all(same)
    assert not any(other)


@register_model("renamed")
class Renamed(nn.Module):
    """A user's network, whose dropout is called otherwise than the toy's."""

    num_classes: int
    dropout_rate: float = 0.0

    @nn.compact
    def __call__(self, x, t, y, train=False):
        return toys.Toy(self.num_classes, dropout=self.dropout_rate)(x, t, y, train)


def test_a_network_may_call_its_dropout_what_it_likes():
    labs = [toys.Lab(toys.config(model={"name": "renamed", "dropout_rate": rate}), ONE) for rate in (0.5, 0.0)]
    losses = [float(lab.run(1)[1].window.loss) for lab in labs]
    assert all(np.isfinite(losses))
    assert losses[0] != losses[1]
