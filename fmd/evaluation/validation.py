"""The flow-matching loss on the test split, from fixed noise and fixed times: comparable between steps and runs.

Each example is seen at one time, (i + 1/2) / N for example i of N in a fixed shuffle, with its label. The error is
that of the velocity, whatever the network predicts, so runs with other prediction types compare, too.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fmd.data import Split, batch_indices
from fmd.math import odes, paths, schedules
from fmd.utils.compile import cpu_compiler_options
from fmd.utils.distributed import Layout, split_batch
from fmd.utils.pixels import to_unit
from fmd.utils.seed import example_normal, stream

TIME_MARGIN = 1e-3  # schedules may be singular at 0 and 1; the outermost times stay this far inside


def make_validation(
    model: Any, facts: Mapping[str, Any], split: Split, layout: Layout, *, examples: int, batch_size: int = 250
) -> Callable[[Any], dict[str, float]]:
    """A function from parameters to {"validation_loss"}: the mean over examples and pixels.

    Args:
        model: the network.
        facts: the run's facts: config (path, seed) and num_classes.
        split: images and labels to test on; `examples` of them are used, or all if there are fewer.
        layout: the devices to use.
    """
    config = facts["config"]
    schedule = schedules.get(**config["path"]["schedule"])
    count = min(examples, len(split))
    chosen = batch_indices(0, 0, count, len(split))
    images, labels = split.images[chosen], split.labels[chosen]
    times = np.clip((np.arange(count, dtype=np.float32) + 0.5) / count, TIME_MARGIN, 1 - TIME_MARGIN)
    key_seed = config["seed"]

    def losses(params: Any, pixels: Any, labels: Any, index: Any, t: Any) -> jax.Array:
        def predict(x: jax.Array, t: jax.Array, y: jax.Array) -> jax.Array:
            return model.apply({"params": params}, x, t, y, train=False)

        x1 = to_unit(pixels)
        x0 = example_normal(stream(key_seed, "eval"), index, x1.shape[1:])
        velocity = odes.from_model(predict, schedule, config["path"]["prediction"])
        error = velocity(t, paths.interpolate(schedule, x0, x1, t), labels) - paths.velocity(schedule, x0, x1, t)
        return jnp.mean(error**2, axis=(1, 2, 3))

    program = jax.jit(losses, out_shardings=layout.replicated, compiler_options=cpu_compiler_options())
    batch = -(-min(batch_size, count) // layout.mesh.size) * layout.mesh.size

    def evaluate(params: Any) -> dict[str, float]:
        parts = []
        for first in range(0, count, batch):
            index = np.arange(first, first + batch, dtype=np.int32)
            rows = np.minimum(index, count - 1)  # the last part is filled up with copies, cut off again below
            parts.append(program(params, *split_batch(layout, images[rows], labels[rows], index, times[rows])))
        return {"validation_loss": float(np.concatenate([np.asarray(p) for p in parts])[:count].mean(dtype=np.float64))}

    return evaluate
