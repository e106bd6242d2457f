"""Bits per dimension of real images under a trained model: what a lossless code would spend on each of their numbers.

-log2 p(x + u), u uniform over one grey level, of the conditional model without guidance: guidance makes a density of
its own, not the model's. The divergence is estimated with one Rademacher probe per image, which is unbiased; the
standard error over images includes its noise. The formulas are in `fmd.math.likelihood`.
"""

import math
from typing import Any

import jax
import numpy as np
from tqdm.auto import tqdm

from fmd.data import Split, batch_indices
from fmd.math import odes, schedules
from fmd.math.likelihood import bits_per_dim, dequantise, log_likelihood
from fmd.sampling.program import END_EPSILON
from fmd.sampling.sampler import Sampler
from fmd.utils.compile import cpu_compiler_options
from fmd.utils.distributed import split_batch
from fmd.utils.seed import example_keys, stream

BATCH = 100
TOLERANCE = 1e-4


def measure(sampler: Sampler, split: Split, *, examples: int, seed: int, quiet: bool) -> dict[str, Any]:
    """Bits per dimension over `examples` images of a split, or all where there are fewer.

    Noise and probe of an image are functions of (seed, its number), whatever the batches and devices.

    Returns:
        {"bits_per_dim", "standard_error", "examples", "unsolved"}: images whose solve failed are left out and counted.
    """
    count = min(examples, len(split))
    rows = batch_indices(0, 0, count, len(split))
    path = sampler.facts["config"]["path"]
    schedule = schedules.get(**path["schedule"])
    size = -(-min(BATCH, count) // sampler.layout.mesh.size) * sampler.layout.mesh.size

    def bits(params: Any, key: jax.Array, images: jax.Array, labels: jax.Array, index: jax.Array) -> jax.Array:
        def predict(x: jax.Array, t: jax.Array, y: jax.Array) -> jax.Array:
            return sampler.model.apply({"params": params}, x, t, y, train=False)

        for_noise, for_probe = jax.random.split(key)
        log_p, _ = log_likelihood(
            odes.from_model(predict, schedule, path["prediction"]),
            jax.vmap(dequantise)(example_keys(for_noise, index), images),
            key=for_probe,
            trace="hutchinson",
            prior_std=schedule.prior_std,
            args=labels,
            indices=index,
            rtol=TOLERANCE,
            atol=TOLERANCE,
            end_epsilon=END_EPSILON if schedule.singular_times else None,
        )
        return bits_per_dim(log_p, math.prod(images.shape[1:]))

    program = jax.jit(bits, out_shardings=sampler.layout.replicated, compiler_options=cpu_compiler_options())
    key = stream(seed, "eval")
    parts = []
    for first in tqdm(range(0, count, size), desc="bits per dimension", unit="batch", disable=quiet):
        index = np.arange(first, first + size, dtype=np.int32)
        chosen = rows[np.minimum(index, count - 1)]  # the last part is filled up with copies, cut off again below
        batch = split_batch(sampler.layout, split.images[chosen], split.labels[chosen], index)
        parts.append(np.asarray(program(sampler.params, key, *batch)))
    values = np.concatenate(parts)[:count].astype(np.float64)
    solved = values[np.isfinite(values)]
    return {
        "bits_per_dim": float(solved.mean()) if len(solved) else None,
        "standard_error": float(solved.std(ddof=1) / math.sqrt(len(solved))) if len(solved) > 1 else None,
        "examples": count,
        "unsolved": count - len(solved),
    }
