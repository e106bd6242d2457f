"""Everything that the next training step depends on, in one tree of arrays."""

from collections.abc import Sequence

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jaxtyping import PyTree

from fmd.training.tuning import Tuning
from fmd.types import Params

TIME_BINS = 8  # the loss is also logged for eighths of [0, 1]
EDITION_1 = ("steps", "loss", "grad_norm", "bin_loss", "bin_count")  # the window's sums in fmd 0.1


class Window(flax.struct.PyTreeNode):
    """Sums since the last line of the log. Part of the state, so that a resumed run writes the same lines."""

    steps: PyTree  # float32 scalar, steps added up
    loss: PyTree  # float32 scalar
    grad_norm: PyTree  # float32 scalar, before clipping
    bin_loss: PyTree  # float32 [TIME_BINS]
    bin_count: PyTree  # float32 [TIME_BINS]
    figures: PyTree  # float32 scalars by name: what the method logs beside its loss


class TrainState(flax.struct.PyTreeNode):
    """State of a run after `step` steps. All floats are float32, whatever the model computes in."""

    step: PyTree  # int32 scalar
    params: PyTree  # of the network; as fmd.training.tuning says where there is a critic, or are low-rank factors
    opt_state: PyTree  # optax.OptState
    ema: PyTree  # averages of the parameters, by name; see fmd.training.averages
    window: PyTree  # Window
    skipped: PyTree  # int32 scalar: steps left out because a gradient was not finite
    first_bad: PyTree  # int32 scalar: the first step whose loss was not finite, or -1


def empty_window(figures: Sequence[str] = ()) -> Window:
    """Sums of nothing."""
    zero, bins = jnp.zeros((), jnp.float32), jnp.zeros(TIME_BINS, jnp.float32)
    return Window(zero, zero, zero, bins, bins, dict.fromkeys(figures, zero))


def create_state(
    network: Params,
    optimizer: optax.GradientTransformation,
    averages: Sequence[str],
    figures: Sequence[str] = (),
    critic: Params | None = None,
    tuning: Tuning | None = None,
) -> TrainState:
    """The state at step 0. Every average gets buffers of its own, so that the state can be donated."""
    tuning = Tuning(critic=critic is not None) if tuning is None else tuning
    params = tuning.begin(network, critic)
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        opt_state=optimizer.init(tuning.split(params)[0]),
        ema={name: jax.tree.map(jnp.copy, network) for name in averages},
        window=empty_window(figures),
        skipped=jnp.zeros((), jnp.int32),
        first_bad=jnp.full((), -1, jnp.int32),
    )


def as_edition_1(state: TrainState) -> TrainState:
    """The state in the form that fmd 0.1 saved: sums without the figures of a method, which none had."""
    return state.replace(window={name: getattr(state.window, name) for name in EDITION_1})


def from_edition_1(state: TrainState) -> TrainState:
    """The state of today from one in the form of `as_edition_1`; any other stays as it is."""
    if isinstance(state.window, Window):
        return state
    return state.replace(window=Window(**state.window, figures={}))
