"""Everything that the next training step depends on, in one tree of arrays."""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax

TIME_BINS = 8  # the loss is also logged for eighths of [0, 1]


class Window(flax.struct.PyTreeNode):
    """Sums since the last line of the log. Part of the state, so that a resumed run writes the same lines."""

    steps: Any  # float32 scalar, steps added up
    loss: Any  # float32 scalar
    grad_norm: Any  # float32 scalar, before clipping
    bin_loss: Any  # float32 [TIME_BINS]
    bin_count: Any  # float32 [TIME_BINS]


class TrainState(flax.struct.PyTreeNode):
    """State of a run after `step` steps. All floats are float32, whatever the model computes in."""

    step: Any  # int32 scalar
    params: Any
    opt_state: Any  # optax.OptState
    ema: Any  # averages of the parameters, by name; see fmd.training.ema
    window: Any  # Window
    skipped: Any  # int32 scalar: steps left out because a gradient was not finite
    first_bad: Any  # int32 scalar: the first step whose loss was not finite, or -1


def empty_window() -> Window:
    zero = jnp.zeros((), jnp.float32)
    return Window(zero, zero, zero, jnp.zeros(TIME_BINS, jnp.float32), jnp.zeros(TIME_BINS, jnp.float32))


def create_state(params: Any, optimizer: optax.GradientTransformation, averages: tuple[str, ...]) -> TrainState:
    """The state at step 0. Every average gets buffers of its own, so that the state can be donated."""
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        opt_state=optimizer.init(params),
        ema={name: jax.tree.map(jnp.copy, params) for name in averages},
        window=empty_window(),
        skipped=jnp.zeros((), jnp.int32),
        first_bad=jnp.full((), -1, jnp.int32),
    )
