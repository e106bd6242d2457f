"""Images changed by a trained model: told another condition, inverted to noise, and joined through noise.

The formulas are in `fmd.math.editing`. Noise is standard normal here, whatever the schedule: what `invert` gives, a
sampler takes as `noise`. The flow of a model trained with `clip_data` leads many noises to one black pixel, so a little
noise, the same in every call, is added to an image before it is inverted.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8

from fmd.math import editing, paths
from fmd.math.pixels import to_uint8, to_unit
from fmd.math.simulators import solve_ode
from fmd.randomness import example_normal, stream
from fmd.sampling import checks
from fmd.sampling.prior import BATCH, Prior, ask, check_images, check_told, end_epsilon, flow_of
from fmd.types import Condition, Field, Images, Index, Number, Params, Pixels, TypedKey

SHARES = tuple(i / 8 for i in range(9))
INVERTED_FROM = 0.98  # the time up to which images are noised first, where pixels do not tell their noise
STARTS = {"flow_edit": 0.3, "sde_edit": 0.5, "invert": 0.0}


def edit(
    sampler: Prior,
    images: Any,
    y: Condition,
    key: TypedKey,
    *,
    source: Condition = None,
    method: str = "flow_edit",
    start: Number | None = None,
    steps: int = 50,
    weight: Number = 1,
    batch_size: int = BATCH,
    params: Params | None = None,
    quiet: bool = True,
) -> np.ndarray:
    """The images told `y` instead of `source`, uint8 [B, H, W, C].

    Args:
        sampler: the model.
        images: uint8 [B, H, W, C].
        y: what they shall become: labels [B] or a dictionary of parts; None: untold.
        key: a typed key.
        source: what they are; None: untold.
        method: "flow_edit", "sde_edit" (does not look at the source), or "invert": to noise told the source, and back.
        start: the time up to which an image is noised: the smaller, the more is changed. Default: see STARTS.
        steps: of the midpoint rule.
        weight: of the guidance.
        batch_size, params, quiet: as in `restore`.

    Raises:
        ValueError: for images that are not uint8 of the model's shape, a condition that does not fit, an unknown
            method, a start outside [0, 1), what is no key.
    """
    if method not in STARTS:
        raise ValueError(f"unknown method of editing {method!r}; known: {', '.join(STARTS)}")
    checks.check_key(key)
    pixels, first = check_images(sampler, images), STARTS[method] if start is None else start
    if not 0 <= first < 1 or (method == "invert" and first):
        raise ValueError(f"start={first} must be in [0, 1): the time up to which noise is added; 0 for 'invert'")
    target, before = (check_told(sampler, told, len(pixels)) for told in (y, source))
    schedule, epsilon = flow_of(sampler).schedule, end_epsilon(sampler)

    def compute(
        field: Field, key: TypedKey, index: Index, pixels: Pixels, target: Condition, before: Condition
    ) -> Pixels:
        x = to_unit(pixels)
        if method == "flow_edit":
            made = editing.flow_edit(
                field, x, key, source=before, target=target, start=first, schedule=schedule, steps=steps, indices=index
            )
        elif method == "sde_edit":
            made = editing.sde_edit(
                field, x, key, args=target, start=first, schedule=schedule, steps=steps, indices=index,
                end_epsilon=epsilon,
            )  # fmt: skip
        else:
            begin, x = _noised(sampler, x, index)
            x0 = editing.invert(field, x, start=begin, args=before, steps=steps, end_epsilon=epsilon)
            made = solve_ode(field, x0, args=target, solver="midpoint", steps=steps, end_epsilon=epsilon).x
        return to_uint8(made)

    index = np.arange(len(pixels), dtype=np.int32)
    return np.asarray(ask(
        sampler, ("editing", method, first, steps), compute, (key,), index, pixels, target, before,
        weight=weight, batch_size=batch_size, params=params, quiet=quiet,
    ))  # fmt: skip


def round_trip(
    sampler: Prior,
    images: Any,
    y: Condition = None,
    *,
    steps: int = 50,
    solver: str = "midpoint",
    weight: Number = 1,
    batch_size: int = BATCH,
    params: Params | None = None,
    quiet: bool = True,
) -> tuple[np.ndarray, np.ndarray]:
    """(the noise float32 [B, H, W, C] that flows to the images, the error [B] of flowing there and back).

    The error is the root mean square over pixels of [-1, 1]. Arguments and errors as in `edit`.
    """
    pixels = check_images(sampler, images)
    told, width = check_told(sampler, y, len(pixels)), flow_of(sampler).schedule.prior_std
    epsilon, index = end_epsilon(sampler), np.arange(len(pixels), dtype=np.int32)

    def compute(field: Field, index: Index, pixels: Pixels, y: Condition) -> tuple[Images, Float[Array, " B"]]:
        x1 = to_unit(pixels)
        noised = _noised(sampler, x1, index)
        x0, error = editing.round_trip(
            field, x1, noised=noised, args=y, steps=steps, solver=solver, end_epsilon=epsilon
        )
        return x0 / width, error

    found: tuple[np.ndarray, np.ndarray] = ask(
        sampler, ("inverting", steps, solver), compute, (), index, pixels, told,
        weight=weight, batch_size=batch_size, params=params, quiet=quiet,
    )  # fmt: skip
    return found


def interpolate(
    sampler: Prior,
    first: Any,
    second: Any,
    y: Condition = None,
    *,
    shares: Sequence[Number] = SHARES,
    steps: int = 50,
    weight: Number = 1,
    batch_size: int = BATCH,
    params: Params | None = None,
    quiet: bool = True,
) -> np.ndarray:
    """Images on the way from `first` to `second` through their noise, uint8 [shares, B, H, W, C].

    The noises are joined by an arc (`slerp`); `y` is told at both ends. Share 0 gives `first` back, 1 `second`, but for
    the error of the round trip. Arguments and errors as in `edit`.
    """
    pixels = [check_images(sampler, images) for images in (first, second)]
    if len(pixels[0]) != len(pixels[1]):
        raise ValueError(f"{len(pixels[0])} images to begin with and {len(pixels[1])} to end with; give one each")
    told, epsilon, ways = check_told(sampler, y, len(pixels[0])), end_epsilon(sampler), tuple(map(float, shares))
    index = np.arange(len(pixels[0]), dtype=np.int32)

    def compute(field: Field, index: Index, first: Pixels, second: Pixels, y: Condition) -> UInt8[Array, "..."]:
        starts = [_noised(sampler, to_unit(end), index, number) for number, end in enumerate((first, second))]
        ends = [editing.invert(field, x, start=begin, args=y, steps=steps, end_epsilon=epsilon) for begin, x in starts]
        x0 = jnp.stack([editing.slerp(ends[0], ends[1], share) for share in ways], axis=1)
        told = jax.tree.map(lambda part: jnp.repeat(part, len(ways), axis=0), y)
        start = x0.reshape(-1, *x0.shape[2:])
        x1 = solve_ode(field, start, args=told, solver="midpoint", steps=steps, end_epsilon=epsilon).x
        return to_uint8(x1).reshape(x0.shape)

    frames: np.ndarray = ask(
        sampler, ("interpolating", ways, steps), compute, (), index, *pixels, told,
        weight=weight, batch_size=batch_size, params=params, quiet=quiet,
    )  # fmt: skip
    return np.moveaxis(frames, 1, 0)


def _noised(sampler: Prior, x1: Images, index: Index, number: int = 0) -> tuple[Number, Images]:
    """The time from which images [B, ...] are inverted, and their states there; `number` is that of several sets."""
    if not getattr(sampler.method, "clip_data", False):
        return 1.0, x1
    noise = example_normal(jax.random.fold_in(stream(0, "inverting"), number), index, sampler.image_shape)
    return INVERTED_FROM, paths.interpolate(flow_of(sampler).schedule, noise, x1, INVERTED_FROM)
