"""Bits per dimension of real images under a trained model: the cost of a lossless code for each of their numbers.

-log2 p(x + u), u uniform over one grey level, of the conditional model without guidance: guidance makes a density of
its own, not the model's. The divergence is estimated with one Rademacher probe per image, which is unbiased; the
standard error over images includes its noise. All is computed in float32, whatever the network was trained in: a
network that rounds to bfloat16 has another density than its images.

With K > 1 draws of u the density of an image is their mean, -log2 (1/K) sum_k p(x + u_k), a tighter bound
(arXiv 1509.00519). Noise in log p would bias it, so the divergence is then exact: one product with the Jacobian for
each number of an image, in every evaluation. The formulas are in `fmd.math.likelihood`.
"""

import math
from functools import partial

import jax
import numpy as np
from jaxtyping import Array, Float

from fmd.data import Split, batch_indices
from fmd.devices import cpu_compiler_options, map_batches
from fmd.math.likelihood import bits_per_dim, dequantise, log_likelihood
from fmd.methods.flow_matching import END_EPSILON
from fmd.models.network import ModelNetwork, in_float32
from fmd.randomness import example_keys, stream
from fmd.sampling.prior import flow_of
from fmd.sampling.sampler import Sampler
from fmd.types import Condition, Images, Index, Params, Pixels, TypedKey

BATCH = 100
TOLERANCE = 1e-4


def measure(
    sampler: Sampler,
    split: Split,
    *,
    examples: int,
    seed: int,
    draws: int = 1,
    quiet: bool = False,
    batch_size: int = BATCH,
    tolerance: float = TOLERANCE,
) -> dict[str, float | int | str | None]:
    """Bits per dimension over `examples` images of a split, or all where there are fewer.

    Noise and probe of an image are functions of (seed, its number), whatever the batches and devices.

    Args:
        sampler: the model.
        split: real images.
        examples: how many of them, in a fixed shuffle.
        seed: of noise and probes.
        draws: dequantisations of each image.
        quiet: without a progress bar.
        batch_size: images per call of the compiled program.
        tolerance: of the solver.

    Returns:
        {"bits_per_dim", "standard_error", "examples", "unsolved", "draws", "trace"}: images whose solve failed are
        left out and counted.

    Raises:
        ValueError: for a method without a velocity field.
    """
    method, info = flow_of(sampler, "bits per dimension"), sampler.info
    model, trace = in_float32(sampler.model), "hutchinson" if draws == 1 else "exact"
    count = min(examples, len(split))
    chosen = split.take(batch_indices(0, 0, count, len(split)))

    def bits(params: Params, key: TypedKey, pixels: Pixels, y: Condition, index: Index) -> Float[Array, " B"]:
        field = method.field(ModelNetwork(model.apply, params, info.num_classes, info.conditions))

        def log_density(key: TypedKey) -> Float[Array, " B"]:
            for_noise, for_probe = jax.random.split(key)
            x: Images = jax.vmap(dequantise)(example_keys(for_noise, index), pixels)
            log_p, _ = log_likelihood(
                field,
                x,
                key=for_probe,
                trace=trace,
                prior_std=method.schedule.prior_std,
                args=y,
                indices=index,
                rtol=tolerance,
                atol=tolerance,
                end_epsilon=END_EPSILON if method.schedule.singular_times else None,
            )
            return log_p

        if draws == 1:
            return bits_per_dim(log_density(key), math.prod(pixels.shape[1:]))
        log_p = jax.nn.logsumexp(jax.lax.map(log_density, jax.random.split(key, draws)), axis=0)
        return bits_per_dim(log_p - math.log(draws), math.prod(pixels.shape[1:]))

    program = jax.jit(bits, out_shardings=sampler.layout.replicated, compiler_options=cpu_compiler_options())
    values = map_batches(
        sampler.layout,
        partial(program, sampler.params, stream(seed, "eval")),
        batch_size,
        chosen.images,
        chosen.y,
        np.arange(count, dtype=np.int32),
        quiet=quiet,
        what="bits per dimension",
    ).astype(np.float64)
    solved = values[np.isfinite(values)]
    return {
        "bits_per_dim": float(solved.mean()) if len(solved) else None,
        "standard_error": float(solved.std(ddof=1) / math.sqrt(len(solved))) if len(solved) > 1 else None,
        "examples": count,
        "unsolved": count - len(solved),
        "draws": draws,
        "trace": trace,
    }
