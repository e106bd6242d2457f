"""The validation loss: the method's own loss on the test split, from fixed noise, comparable between steps and runs.

What a method draws is a function of (config.seed, number of the example). Where it is a `fmd.methods.Drawn`, example i
of N, in a fixed shuffle, is seen at the one time (i + 1/2) / N, with r = t where there is a second time. Its condition
is told, and its noise is its own, not one paired over a batch.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from fmd import methods
from fmd.data import Split, batch_indices
from fmd.devices import Layout, cpu_compiler_options, map_batches
from fmd.math.pixels import to_unit
from fmd.methods import Drawn
from fmd.models.contract import Model
from fmd.models.network import ModelNetwork
from fmd.randomness import ExampleRng, named, stream
from fmd.run_info import RunInfo
from fmd.sharding import gather_params
from fmd.telling import measuring_rng, telling_of
from fmd.types import Condition, Index, Params, Pixels, Times, TypedKey

TIME_MARGIN = 1e-3  # schedules may be singular at 0 and 1; the outermost times stay this far inside


def make_validation(
    model: Model, info: RunInfo, split: Split, layout: Layout, *, examples: int, batch_size: int = 250
) -> Callable[[Params], dict[str, float]]:
    """A function from parameters to {"validation_loss"}: the mean over examples and pixels.

    Further figures that the loss of the method reports are there as "validation_NAME". A method that learns from
    its average is taught by the same parameters, one with a frozen teacher is judged as it is without (`validated`).
    So many `examples` of the split are looked at, or all where there are fewer.
    """
    method = methods.from_config(info.config)
    method = getattr(method, "validated", method)
    count = min(examples, len(split))
    rows = batch_indices(0, 0, count, len(split))
    chosen = split.take(rows)
    index = np.arange(count, dtype=np.int32)
    times = np.clip((index.astype(np.float32) + 0.5) / count, TIME_MARGIN, 1 - TIME_MARGIN)
    base = stream(info.config.seed, "eval")

    def key_of(name: str) -> TypedKey:
        return base if name == "noise" else named(base, name)

    tells, apply = telling_of(info, split.y), gather_params(layout, model)

    def losses(
        params: Params, pixels: Pixels, y: Condition, row: Index, index: Index, t: Times
    ) -> dict[str, Float[Array, " B"]]:
        network = ModelNetwork(apply, params, info.num_classes, info.conditions)
        rng = ExampleRng(key_of, index, count)
        x1 = to_unit(pixels)
        drawn = method.draw(rng, x1, tells(measuring_rng(info, row), x1, y))
        if isinstance(drawn, Drawn):
            drawn = _spread(drawn, rng.normal("noise", x1.shape[1:]), t)
        loss = method.loss(network, drawn, teacher=network if method.needs_teacher else None)
        figures = {f"validation_{name}": figure for name, figure in loss.figures.items()}
        return {"validation_loss": loss.value, **figures}

    program = jax.jit(losses, out_shardings=layout.replicated, compiler_options=cpu_compiler_options())

    def evaluate(params: Params) -> dict[str, float]:
        found = map_batches(layout, partial(program, params), batch_size, chosen.images, chosen.y, rows, index, times)
        return {name: float(values.mean(dtype=np.float64)) for name, values in found.items()}

    return evaluate


def _spread(drawn: Drawn, noise: PyTree, t: Times) -> Drawn:
    """The same images with noise of their own at given times, their conditions told."""
    told = jnp.zeros_like(drawn.untold)
    return drawn._replace(x0=noise, t=t, untold=told, r=None if drawn.r is None else t)
