"""Bits per dimension of real images under a trained model: the cost of a lossless code for each of their numbers.

The density is that of the conditional model without guidance: guidance makes a density of its own, not the model's.
`fmd.sampling.judging.bits_per_dim` computes it; the standard error over images includes the noise of its probes.
"""

import math

import numpy as np

from fmd.data import Split, batch_indices
from fmd.randomness import stream
from fmd.sampling.sampler import Sampler


def measure(
    sampler: Sampler,
    split: Split,
    *,
    examples: int,
    seed: int,
    draws: int = 1,
    quiet: bool = False,
    batch_size: int = 100,
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

    Returns:
        {"bits_per_dim", "standard_error", "examples", "unsolved", "draws", "trace"}: images whose solve failed are
        left out and counted.

    Raises:
        ValueError: for a method without a velocity field.
    """
    count = min(examples, len(split))
    chosen = split.take(batch_indices(0, 0, count, len(split)))
    values = sampler.bits_per_dim(
        chosen.images, chosen.y, stream(seed, "eval"), draws=draws, batch_size=batch_size, quiet=quiet
    )
    solved = values[np.isfinite(values)].astype(np.float64)
    return {
        "bits_per_dim": float(solved.mean()) if len(solved) else None,
        "standard_error": float(solved.std(ddof=1) / math.sqrt(len(solved))) if len(solved) > 1 else None,
        "examples": count,
        "unsolved": count - len(solved),
        "draws": draws,
        "trace": "hutchinson" if draws == 1 else "exact",
    }
