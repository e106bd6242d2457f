"""Times: where on the path a training example or a sampling step stands (t = 0 noise, t = 1 data)."""

from jaxtyping import Array, Float

from fmd.math.broadcasting import Scalars, as_float


def shift(t: Scalars, factor: float) -> Float[Array, "..."]:
    """t / (t + factor (1 - t)), the resolution-dependent shift of 2403.03206; adds -2 log(factor) to a linear log-SNR.

    factor > 1 moves times towards the noise. The inverse is 1 / factor; ValueError unless factor is positive.
    """
    if not factor > 0.0:
        raise ValueError(f"time shift is {factor}; it must be positive")
    t = as_float(t)
    return t / (t + factor * (1.0 - t))
