"""The training step: a pure function of (state, batch), the same under `jit`, `pmap` or a sharded mesh.

It knows no noise, no time and no label: the method draws and regresses. All randomness is a function of (seed, step,
index of the example in the global batch), so the devices that share a batch draw what one device alone would draw.
Under `pmap` (`axis_name` given) the step averages over devices itself, in one collective; on a mesh the compiler does.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax import lax
from jaxtyping import Array, Bool, Int, PyTree

from fmd.blocks import Plain
from fmd.devices import unroll_gradients
from fmd.math.pixels import to_unit
from fmd.methods import Loss, Method
from fmd.models.network import ModelNetwork
from fmd.randomness import example_keys, step_rng
from fmd.training import averages
from fmd.training.augment import Augment
from fmd.training.state import TIME_BINS, TrainState, Window, empty_window
from fmd.training.tuning import Tuning
from fmd.types import Condition, Images, Network, Params, Rng, TypedKey


class Batch(flax.struct.PyTreeNode):
    """One batch, or one device's part of it."""

    x: PyTree  # uint8 [B, H, W, C]
    y: PyTree  # the condition: labels int32 [B], or a dictionary of parts
    index: PyTree  # int32 [B]: position of each example in the global batch


class Report(NamedTuple):
    """Figures of a step about itself."""

    window: Window  # sums since the last multiple of log_every steps, this step included
    first_bad: Int[Array, ""]  # the first step whose loss or gradient was not finite, or -1
    skipped: Int[Array, ""]  # steps left out for that


@dataclass(frozen=True)
class Recipe:
    """Everything that stays the same during a run. Built from a config by `fmd.training.recipe`."""

    apply: Callable[..., Images]  # model.apply
    method: Method
    optimizer: optax.GradientTransformation
    learning_rate: optax.Schedule  # the one that the optimiser follows; here for the log
    averages: dict[str, float]  # fmd.training.averages.averages
    seed: int
    batch_size: int  # global
    log_every: int
    num_classes: int
    tell: Callable[[Rng, Images, Condition], Condition]  # what the network is told, see fmd.telling
    conditions: Plain | None = None
    augment: Augment = Augment()
    tuning: Tuning = Tuning()  # which parameters are trained, and where a critic has its own; averages have none
    frozen: Callable[[Params], Network] | None = None  # the frozen teacher of some methods, from its parameters
    stochastic: bool = False  # the model draws random numbers in training
    accumulation: int = 1
    skip_nonfinite: bool = False


def train_step(
    state: TrainState, batch: Batch, recipe: Recipe, *, teacher: Params | None = None, axis_name: str | None = None
) -> tuple[TrainState, Report]:
    """One optimiser step: the next state, and the report.

    Args:
        state: the state after `state.step` steps.
        batch: this device's part of the global batch (all of it under `jit`).
        recipe: everything that stays the same.
        teacher: parameters of the frozen teacher, where the recipe has one.
        axis_name: the mapped axis under `pmap` or `shard_map`; None where the compiler parallelises.
    """
    rng = step_rng(recipe.seed, state.step, batch.index, recipe.batch_size, axis_name)
    x1 = recipe.augment(rng, to_unit(batch.x))
    drawn = recipe.method.draw(rng, x1, recipe.tell(rng, x1, batch.y))
    params = state.params if axis_name is None else lax.pcast(state.params, axis_name, to="varying")
    taught_by: Network | None = None
    if recipe.frozen is not None:
        taught_by = recipe.frozen(teacher)
    elif recipe.method.needs_teacher:
        taught_by = _network(recipe, state.ema[next(iter(recipe.averages))])
    gradient, loss = _gradient(params, taught_by, drawn, batch.index, rng.key("dropout"), recipe)

    in_bin = jax.nn.one_hot(jnp.minimum(loss.t * TIME_BINS, TIME_BINS - 1).astype(jnp.int32), TIME_BINS)
    bin_loss = jnp.sum(jnp.where(in_bin > 0, loss.value[:, None], 0.0), axis=0)  # a matmul in TF32 would round it
    figures = {name: jnp.mean(values) for name, values in loss.figures.items()}
    sums = (gradient, jnp.mean(loss.value), bin_loss, jnp.sum(in_bin, axis=0), figures)
    if axis_name is not None:
        # A mean over devices of per-device sums; the counts are put right below.
        sums = lax.pmean(sums, axis_name)
    gradient, mean_loss, bin_loss, bin_count, figures = sums
    devices = 1 if axis_name is None else lax.axis_size(axis_name)

    grad_norm = optax.tree.norm(gradient)
    good = jnp.isfinite(mean_loss) & jnp.isfinite(grad_norm)
    this_step = Window(jnp.ones(()), mean_loss, grad_norm, bin_loss * devices, bin_count * devices, figures)
    state = state.replace(window=_add_to_window(state, this_step, good | (not recipe.skip_nonfinite), recipe.log_every))
    state = _apply_gradient(state, gradient, good, recipe)
    return state, Report(state.window, state.first_bad, state.skipped)


def train_steps(
    state: TrainState,
    resident: Mapping[str, PyTree],
    feed: dict[str, PyTree],
    recipe: Recipe,
    *,
    axis_name: str | None = None,
) -> tuple[TrainState, Report]:
    """Several steps in one call: scans `train_step` over the leading axis of `feed`.

    Args:
        state: the state before.
        resident: "x" and "y" of the whole training set, unless it is streamed; "teacher", the parameters of a frozen
            one.
        feed: arrays [steps, batch, ...]: "index", the positions in the global batch, and "rows" of the resident set
            or "x" and "y" themselves.
        recipe, axis_name: as in `train_step`.
    """

    teacher = resident.get("teacher")
    whole = {key: value for key, value in resident.items() if key != "teacher"}

    def body(state: TrainState, part: dict[str, PyTree]) -> tuple[TrainState, Report]:
        source = jax.tree.map(lambda array: jnp.take(array, part["rows"], axis=0), whole) if whole else part
        batch = Batch(source["x"], source["y"], part["index"])
        return train_step(state, batch, recipe, teacher=teacher, axis_name=axis_name)

    steps = len(feed["index"])
    if steps == 1:  # no loop around a single step: XLA compiles and runs it better without
        return body(state, jax.tree.map(lambda x: x[0], feed))
    state, reports = lax.scan(body, state, feed, unroll=unroll_gradients(steps))
    return state, jax.tree.map(lambda x: x[-1], reports)


def _network(recipe: Recipe, params: Params, **training: Any) -> ModelNetwork:
    return ModelNetwork(recipe.apply, params, recipe.num_classes, recipe.conditions, **training)


def _gradient(
    params: Params, teacher: Network | None, drawn: PyTree, index: Array, dropout_key: TypedKey, recipe: Recipe
) -> tuple[Params, Loss]:
    """The gradient of the mean loss and the loss of each example, in `recipe.accumulation` parts.

    The gradient is that of the trained parameters.
    """
    params, rest = recipe.tuning.split(params)

    def mean_loss(params: Params, part: tuple[PyTree, Array]) -> tuple[Array, Loss]:
        params, (drawn, index) = recipe.tuning.join(params, rest), part
        keys = example_keys(dropout_key, index) if recipe.stochastic else None
        training = {"train": True, "dropout_keys": keys}
        more = {"critic": _network(recipe, params["critic"], **training)} if recipe.tuning.critic else {}
        network = _network(recipe, recipe.tuning.network(params), **training)
        loss = recipe.method.loss(network, drawn, teacher, **more)
        return jnp.mean(loss.value), loss

    differentiate = jax.grad(mean_loss, has_aux=True)
    whole, parts = (drawn, index), recipe.accumulation
    if parts == 1:
        gradient, loss = differentiate(params, whole)
        return gradient, loss
    # Strided parts, so that each of them is spread over all devices when the batch is.
    split = jax.tree.map(lambda a: a.reshape(-1, parts, *a.shape[1:]).swapaxes(0, 1), whole)

    def add(total: Params, part: tuple[PyTree, Array]) -> tuple[Params, Loss]:
        gradient, loss = differentiate(params, part)
        return jax.tree.map(jnp.add, total, gradient), loss

    nothing = jax.tree.map(jnp.zeros_like, params)
    total, losses = lax.scan(add, nothing, split, unroll=unroll_gradients(parts))
    whole_loss = jax.tree.map(lambda a: a.swapaxes(0, 1).reshape(-1), losses)
    return jax.tree.map(lambda g: g / parts, total), whole_loss


def _add_to_window(state: TrainState, this_step: Window, counts: Bool[Array, ""] | bool, log_every: int) -> Window:
    fresh = state.step % log_every == 0
    empty = empty_window(tuple(this_step.figures))
    old = jax.tree.map(lambda none, kept: jnp.where(fresh, none, kept), empty, state.window)
    added: Window = jax.tree.map(lambda kept, new: jnp.where(counts, kept + new, kept), old, this_step)
    return added


def _apply_gradient(state: TrainState, gradient: Params, good: Bool[Array, ""], recipe: Recipe) -> TrainState:
    """The update; where the loss or the gradient is not finite it is noted, and left out if the recipe says so."""
    trained, rest = recipe.tuning.split(state.params)
    updates, opt_state = recipe.optimizer.update(gradient, state.opt_state, trained)
    params = recipe.tuning.join(optax.apply_updates(trained, updates), rest)
    averaged = averages.update(state.ema, recipe.tuning.network(params), recipe.averages, state.step + 1)
    changed = (params, opt_state, averaged)
    skipped = state.skipped
    if recipe.skip_nonfinite:
        unchanged = (state.params, state.opt_state, state.ema)
        changed = jax.tree.map(lambda new, old: jnp.where(good, new, old), changed, unchanged)
        skipped = skipped + ~good
    params, opt_state, averaged = changed
    step = state.step + 1
    first_bad = jnp.where((state.first_bad < 0) & ~good, step, state.first_bad)
    return state.replace(
        step=step, params=params, opt_state=opt_state, ema=averaged, skipped=skipped, first_bad=first_bad
    )
