"""A trained model as a prior: its velocity field, and programs that ask it over batches and devices.

Images are uint8 [B, H, W, C] at this boundary and floats in [-1, 1] inside. A condition of None is untold, for a model
that was trained to bear that. At guidance weight 1 the field is that of the data, of a class or, untold, of all; other
weights sharpen it: they are allowed, and what comes out is no posterior of the data.
"""

from collections.abc import Callable, Hashable
from functools import partial
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from jaxtyping import PyTree

from fmd.devices import Layout, cpu_compiler_options, map_batches
from fmd.math import fields, guidance
from fmd.methods.method import Flow, Method
from fmd.methods.solving import END_EPSILON
from fmd.models.contract import Model
from fmd.models.network import ModelNetwork
from fmd.run_info import RunInfo
from fmd.sampling import checks
from fmd.types import Condition, Field, Number, Params

BATCH = 64


@runtime_checkable
class Prior(Protocol):
    """The part of a `fmd.sampling.sampler.Sampler` that is needed here."""

    layout: Layout
    params: Params | None
    info: RunInfo
    model: Model
    method: Method
    programs: dict[Any, Callable[..., PyTree]]
    image_shape: tuple[int, int, int]
    num_classes: int


def flow_of(sampler: Prior, what: str = "a prior") -> Flow:
    """The method of a sampler. ValueError, naming `what` needs it, where it has no field, and so no density."""
    if not isinstance(sampler.method, Flow):
        why = getattr(sampler.method, "no_field", "give it `field(network)` and `schedule`")
        raise ValueError(
            f"{what} needs the velocity field of a method, and {sampler.info.config.method.name!r} has none: {why}"
        )
    return sampler.method


def field_of(sampler: Prior, params: Params, weight: Number, model: Model | None = None) -> Field:
    """The velocity field(t, x, y), guided where the weight is not 1."""
    flow, info = flow_of(sampler), sampler.info
    apply = (sampler.model if model is None else model).apply
    network = ModelNetwork(apply, params, info.num_classes, info.conditions)
    plain = flow.field(network)
    if weight == 1:
        return plain
    guided = fields.guided_field(lambda x, t, y: plain(t, x, y), network.drop, guidance.get("cfg", weight=weight))
    # Told by way of `drop`, since told and untold have one structure.
    return lambda t, x, args=None: guided(t, x, network.drop(args, jnp.zeros(x.shape[:1], bool)))


def end_epsilon(sampler: Prior) -> float:
    """How far inside [0, 1] solvers ask the field."""
    return END_EPSILON if flow_of(sampler).schedule.singular_times else 0.0


def ask(
    sampler: Prior,
    name: tuple[Hashable, ...],
    compute: Callable[..., PyTree],
    shared: tuple[PyTree, ...],
    *rows: PyTree,
    weight: Number = 1,
    model: Model | None = None,
    batch_size: int = BATCH,
    params: Params | None = None,
    quiet: bool = True,
) -> PyTree:
    """compute(field, *shared, *rows) in batches of `rows`, host arrays [N, ...], over all devices; host arrays.

    name     all that `compute` closes over, what is done first: equal names share one compiled program
    shared   arrays handed to every batch, traced
    weight   of the guidance, as are `model` (in place of the sampler's own) and `params`
    """
    check_weight(sampler, weight)
    key = (name, float(weight))
    if key not in sampler.programs:

        def run(params: Params, shared: tuple[PyTree, ...], *rows: PyTree) -> PyTree:
            return compute(field_of(sampler, params, weight, model), *shared, *rows)

        sampler.programs[key] = jax.jit(
            run, out_shardings=sampler.layout.replicated, compiler_options=cpu_compiler_options()
        )
    program = partial(sampler.programs[key], sampler.params if params is None else params, shared)
    return map_batches(sampler.layout, program, batch_size, *rows, quiet=quiet, what=str(name[0]))


def check_weight(sampler: Prior, weight: Number) -> None:
    """Raises ValueError for a weight that the model cannot have; says so where it makes another prior."""
    if isinstance(weight, bool) or not isinstance(weight, int | float | np.number) or not np.isfinite(weight):
        raise ValueError(f"guidance weight is {weight!r}; it must be a number: 1 is the prior of the class")
    if weight != 1 and not sampler.info.can_be_guided:
        raise ValueError(
            f"guidance weight {weight} needs a model trained with labels and train.label_dropout > 0; use weight 1"
        )
    if weight not in (0, 1):
        logging.info("guidance weight %s sharpens the prior: what is drawn is no posterior of the data", weight)


def check_images(sampler: Prior, images: Any) -> np.ndarray:
    """Images as a host array. ValueError where they are not uint8 [B, H, W, C] of the model's shape."""
    array = np.asarray(images)
    if array.dtype != np.uint8 or array.shape[1:] != sampler.image_shape or not len(array):
        raise ValueError(
            f"images must be uint8 [B, {', '.join(map(str, sampler.image_shape))}], one or more, "
            f"not {array.dtype} {list(array.shape)}"
        )
    return array


def check_told(sampler: Prior, y: Condition, count: int) -> Condition:
    """The condition of `count` images; untold where it is None. ValueError where it does not fit."""
    if y is None:
        if sampler.info.conditions is not None:
            raise ValueError(f"this model is told {', '.join(sampler.info.conditions)}: give y, a dictionary of them")
        if sampler.num_classes and not sampler.info.can_be_guided:
            raise ValueError("this model was trained with train.label_dropout = 0 and cannot do without labels: give y")
        return np.full(count, sampler.num_classes, np.int32)
    y, found = checks.condition(y, sampler.info)
    if found != count:
        raise ValueError(f"y is of {found} examples for {count} images; give one each")
    return y
