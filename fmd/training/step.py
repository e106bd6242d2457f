"""The training step: a pure function of (state, batch), the same under `jit`, `pmap` and a sharded mesh.

All randomness is a function of (seed, step, index of the example in the global batch), so the devices that share a
batch draw what one device alone would draw. Under `pmap` (`axis_name` given) the step averages over devices itself, in
one collective; on a mesh the compiler does.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax import lax
from jaxtyping import Array, Float, Int

from fmd.math import times
from fmd.models.conditional_vector_field import draws_random_numbers
from fmd.training import ema
from fmd.training.losses import Draws, Objective, augment, cfg_flow_matching_loss
from fmd.training.state import TIME_BINS, TrainState, Window, empty_window
from fmd.utils import seed as seeds
from fmd.utils.compile import unroll_gradients
from fmd.utils.pixels import to_unit


class Batch(flax.struct.PyTreeNode):
    """One batch, or one device's part of it."""

    images: Any  # uint8 [B, H, W, C]
    labels: Any  # int32 [B]
    index: Any  # int32 [B]: position of each example in the global batch


class Report(NamedTuple):
    """What a step says about itself."""

    window: Window  # sums since the last multiple of log_every steps, this step included
    first_bad: Int[Array, ""]  # the first step whose loss or gradient was not finite, or -1
    skipped: Int[Array, ""]  # how many steps were left out for that


@dataclass(frozen=True)
class Recipe:
    """What stays the same during a run. Built from a config by `fmd.training.setup`."""

    apply: Callable[..., Array]  # model.apply
    objective: Objective
    optimizer: optax.GradientTransformation
    learning_rate: optax.Schedule  # what the optimiser follows; here for the log
    averages: dict[str, float]  # fmd.training.ema.averages
    times: Any  # a sampler of fmd.math.times
    coupling: Any  # a pair function of fmd.math.couplings
    seed: int
    batch_size: int  # global
    null_label: int
    label_dropout: float
    log_every: int
    flip: bool = False
    shift: int = 0
    accumulation: int = 1
    skip_nonfinite: bool = False


def train_step(
    state: TrainState, batch: Batch, recipe: Recipe, *, axis_name: str | None = None
) -> tuple[TrainState, Report]:
    """One optimiser step.

    Args:
        state: the state after `state.step` steps.
        batch: this device's part of the global batch (all of it under `jit`).
        recipe: what stays the same.
        axis_name: the mapped axis under `pmap` or `shard_map`; None where the compiler parallelises.

    Returns:
        The next state and the report.
    """
    x1, labels, draws, dropout_key = draw(state.step, batch, recipe, axis_name)
    params = state.params if axis_name is None else lax.pcast(state.params, axis_name, to="varying")
    gradient, loss = _gradient(params, x1, labels, draws, batch.index, dropout_key, recipe)

    in_bin = jax.nn.one_hot(jnp.minimum(draws.t * TIME_BINS, TIME_BINS - 1).astype(jnp.int32), TIME_BINS)
    bin_loss = jnp.sum(jnp.where(in_bin > 0, loss[:, None], 0.0), axis=0)  # no matmul: TF32 would round the losses
    sums = (gradient, jnp.mean(loss), bin_loss, jnp.sum(in_bin, axis=0))
    if axis_name is not None:
        # A mean over devices of per-device sums; the counts are put right below.
        sums = lax.pmean(sums, axis_name)
    gradient, mean_loss, bin_loss, bin_count = sums
    devices = 1 if axis_name is None else lax.axis_size(axis_name)

    grad_norm = optax.tree.norm(gradient)
    good = jnp.isfinite(mean_loss) & jnp.isfinite(grad_norm)
    this_step = Window(jnp.ones(()), mean_loss, grad_norm, bin_loss * devices, bin_count * devices)
    state = state.replace(window=_add_to_window(state, this_step, good | (not recipe.skip_nonfinite), recipe.log_every))
    state = _apply_gradient(state, gradient, good, recipe)
    return state, Report(state.window, state.first_bad, state.skipped)


def train_steps(
    state: TrainState, resident: Any, feed: dict[str, Array], recipe: Recipe, *, axis_name: str | None = None
) -> tuple[TrainState, Report]:
    """Several steps in one call: scans `train_step` over the leading axis of `feed`.

    Args:
        resident: {"images", "labels"} of the whole training set, or None for a streamed one.
        feed: arrays [steps, batch, ...]: "index", the positions in the global batch, and "rows" of the resident set
            or the "images" and "labels" themselves.
    """

    def body(state: TrainState, part: dict[str, Array]) -> tuple[TrainState, Report]:
        source = part if resident is None else {k: jnp.take(v, part["rows"], axis=0) for k, v in resident.items()}
        return train_step(state, Batch(source["images"], source["labels"], part["index"]), recipe, axis_name=axis_name)

    steps = len(feed["index"])
    if steps == 1:  # no loop around a single step: XLA compiles and runs it better without
        return body(state, jax.tree.map(lambda x: x[0], feed))
    state, reports = lax.scan(body, state, feed, unroll=unroll_gradients(steps))
    return state, jax.tree.map(lambda x: x[-1], reports)


def draw(
    step: Int[Array, ""], batch: Batch, recipe: Recipe, axis_name: str | None
) -> tuple[Array, Array, Draws, Array]:
    """All that is random in a step, from (seed, step, index): (images [-1, 1], labels, draws, key of the dropout).

    Augments and pairs the images, and draws noise, times and label dropout.
    """

    def key(name: str) -> Array:
        return jax.random.fold_in(seeds.stream(recipe.seed, name), step)

    x1, labels = to_unit(batch.images), batch.labels
    if recipe.flip or recipe.shift:
        keys = jax.vmap(jax.random.split)(seeds.example_keys(key("augment"), batch.index))
        mirror = jax.vmap(jax.random.bernoulli)(keys[:, 0]) & recipe.flip
        offset = jax.vmap(lambda k: jax.random.randint(k, (2,), -recipe.shift, recipe.shift + 1))(keys[:, 1])
        x1 = augment(x1, mirror, offset, margin=recipe.shift)

    x0 = seeds.example_normal(key("noise"), batch.index, x1.shape[1:])
    if not recipe.coupling.independent:
        x0, x1, labels = _pair_globally(recipe.coupling, key("coupling"), x0, x1, labels, axis_name)
    draws = Draws(
        x0=x0,
        t=times.draw(recipe.times, key("time"), batch.index, recipe.batch_size),
        drop_label=seeds.example_uniform(key("label_dropout"), batch.index) < recipe.label_dropout,
    )
    return x1, labels, draws, key("dropout")


def _pair_globally(
    coupling: Any, key: Array, x0: Array, x1: Array, labels: Array, axis_name: str | None
) -> tuple[Array, Array, Array]:
    """Pairs over the global batch, whichever way it is split, and returns this device's part."""
    if axis_name is None:
        return coupling(key, x0, x1, labels)
    gathered = lax.all_gather((x0, x1, labels), axis_name, tiled=True)
    start = lax.axis_index(axis_name) * len(x0)
    return jax.tree.map(lambda a: lax.dynamic_slice_in_dim(a, start, len(x0)), coupling(key, *gathered))


def _gradient(
    params: Any, x1: Array, labels: Array, draws: Draws, index: Array, dropout_key: Array, recipe: Recipe
) -> tuple[Any, Float[Array, " B"]]:
    """The gradient of the mean loss and the loss of each example, in `recipe.accumulation` parts."""

    def mean_loss(params: Any, part: tuple[Array, ...]) -> tuple[Array, Array]:
        x1, labels, x0, t, drop_label, index = part
        predict = _predictor(recipe, params, dropout_key, index)
        loss = cfg_flow_matching_loss(
            predict, x1, labels, Draws(x0, t, drop_label), recipe.objective, null_label=recipe.null_label
        )
        return jnp.mean(loss), loss

    differentiate = jax.grad(mean_loss, has_aux=True)
    whole = (x1, labels, draws.x0, draws.t, draws.drop_label, index)
    parts = recipe.accumulation
    if parts == 1:
        return differentiate(params, whole)
    # Strided parts, so that each of them is spread over all devices when the batch is.
    split = jax.tree.map(lambda a: a.reshape(-1, parts, *a.shape[1:]).swapaxes(0, 1), whole)

    def add(total: Any, part: tuple[Array, ...]) -> tuple[Any, Array]:
        gradient, loss = differentiate(params, part)
        return jax.tree.map(jnp.add, total, gradient), loss

    nothing = jax.tree.map(jnp.zeros_like, params)
    total, losses = lax.scan(add, nothing, split, unroll=unroll_gradients(parts))
    return jax.tree.map(lambda g: g / parts, total), losses.swapaxes(0, 1).reshape(-1)


def _predictor(recipe: Recipe, params: Any, dropout_key: Array, index: Array) -> Callable[[Array, Array, Array], Array]:
    variables = {"params": params}

    # Dropout masks per example, so that they do not depend on how the batch is split; vmap fuses back into one batch.
    def one(key: Array, x: Array, t: Array, y: Array) -> Array:
        return recipe.apply(variables, x[None], t[None], y[None], train=True, rngs={"dropout": key})[0]

    def predict(x: Array, t: Array, y: Array) -> Array:
        if draws_random_numbers(recipe.apply, variables, x, t, y):
            return jax.vmap(one)(seeds.example_keys(dropout_key, index), x, t, y)
        return recipe.apply(variables, x, t, y, train=True)

    return predict


def _add_to_window(state: TrainState, this_step: Window, counts: Array, log_every: int) -> Window:
    fresh = state.step % log_every == 0
    old = jax.tree.map(lambda empty, kept: jnp.where(fresh, empty, kept), empty_window(), state.window)
    return jax.tree.map(lambda kept, new: jnp.where(counts, kept + new, kept), old, this_step)


def _apply_gradient(state: TrainState, gradient: Any, good: Array, recipe: Recipe) -> TrainState:
    """The update; where the loss or the gradient is not finite it is noted, and left out if the recipe says so."""
    updates, opt_state = recipe.optimizer.update(gradient, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    changed = (params, opt_state, ema.update(state.ema, params, recipe.averages, state.step + 1))
    skipped = state.skipped
    if recipe.skip_nonfinite:
        unchanged = (state.params, state.opt_state, state.ema)
        changed = jax.tree.map(lambda new, old: jnp.where(good, new, old), changed, unchanged)
        skipped = skipped + ~good
    params, opt_state, averages = changed
    step = state.step + 1
    first_bad = jnp.where((state.first_bad < 0) & ~good, step, state.first_bad)
    return state.replace(
        step=step, params=params, opt_state=opt_state, ema=averages, skipped=skipped, first_bad=first_bad
    )
