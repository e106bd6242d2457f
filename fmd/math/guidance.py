"""Guidance: small rules that combine two predictions of the velocity into one.

`get(name, **params)` gives a rule, called as combine(v_null, v_cond, x, t): the unconditional and the conditional
velocity and x, all [B, ...], t a scalar or [B]. The weight w is 1 for conditional, 0 for unconditional sampling:

    v = v_null + w (v_cond - v_null)                                                   2207.12598

Velocity, data, noise and score are affine in one another and the rule's weights sum to 1, so guiding any of them is the
same. A guided flow is not a sample of the tilted density p_null^(1-w) p_cond^w, and the density that its field implies
is its own.

    cfg             also inside an interval of t or log-SNR only                       2404.07724
    cfg_zero_star   v_null scaled to explain v_cond; zero velocity at first            2503.18886
    apg             the part of the difference along the data prediction damped        2410.02416
    rescale         any of these, brought to the standard deviation of v_cond          2305.08891

Autoguidance (2406.02507) is any of these rules with a weaker model in the place of v_null: `autoguided_field`.

A weight may be a Python number, a traced scalar or one per example [B] (an exported program takes it as an input):
build the rule where the weight is at hand, inside the traced function. Only concrete numbers are checked, and only a
concrete 1 or 0 saves the other half of the network call.
"""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from fmd.math.broadcasting import Scalars, compute_dtype, expand_left
from fmd.math.guidance_rules import RULES, Batch, Guidance, apg_momentum_step
from fmd.math.paths import Field
from fmd.math.registry import build

__all__ = ["RULES", "Guidance", "apg_momentum_step", "autoguided_field", "get", "guided_field"]

Predict = Callable[..., Batch]
"""predict(x [B, ...], t [B], y [B]) -> velocity [B, ...]."""


def get(name: str, **params: Any) -> Guidance:
    """The rule called `name`. ValueError for an unknown name or parameter or a value out of range."""
    return build("guidance", RULES, name, params)


def guided_field(predict: Predict, null_label: int, combine: Guidance) -> Field:
    """field(t, x, args) with labels int32 [B] as args, from predict(x [B, ...], t [B], y [B]) -> velocity [B, ...].

    Both halves are one call of `predict` on 2B rows, each null row beside its conditional row: a batch that is
    sharded over devices stays where it is. Where the rule does not need a half, the call has B rows.
    """

    def field(t: Scalars, x: Batch, args: Any = None) -> Batch:
        if args is None:
            raise ValueError("a guided field needs the labels, int32 [B], as args")
        labels = jnp.asarray(args)
        t_rows = times_of_rows(t, x)
        null = jnp.full_like(labels, null_label)
        if not combine.needs_null:
            v = predict(x, t_rows, labels)
            return combine(v, v, x, t)
        if not combine.needs_cond:
            v = predict(x, t_rows, null)
            return combine(v, v, x, t)
        v = predict(_interleave(x, x), _interleave(t_rows, t_rows), _interleave(null, labels))
        v = v.reshape(x.shape[0], 2, *v.shape[1:])
        return combine(v[:, 0], v[:, 1], x, t)

    return field


def autoguided_field(strong: Predict, weak: Predict, combine: Guidance) -> Field:
    """field(t, x, args) guided by a weaker model, both given the labels: v_weak + w (v_strong - v_weak) under cfg.

    The weak model is an earlier checkpoint or a smaller network of the same task, in the place of v_null.
    """

    def field(t: Scalars, x: Batch, args: Any = None) -> Batch:
        t_rows = times_of_rows(t, x)
        if not combine.needs_null:
            v = strong(x, t_rows, args)
            return combine(v, v, x, t)
        if not combine.needs_cond:
            v = weak(x, t_rows, args)
            return combine(v, v, x, t)
        return combine(weak(x, t_rows, args), strong(x, t_rows, args), x, t)

    return field


def times_of_rows(t: Scalars, x: Batch) -> Float[Array, " b"]:
    """`t` as one float32 (or, beside float64 x, float64) per row of x."""
    rows = expand_left(t, x).astype(compute_dtype(x.dtype)).reshape(-1)
    return jnp.broadcast_to(rows, x.shape[:1])


def _interleave(first: Array, second: Array) -> Array:
    return jnp.stack([first, second], axis=1).reshape(-1, *first.shape[1:])
