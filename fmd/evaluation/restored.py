"""Images measured, restored and compared: what `--mode=restore` shows and counts."""

import time
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np

from fmd.config import literal
from fmd.math import operators
from fmd.math.operators import Operator
from fmd.math.pixels import to_uint8, to_unit
from fmd.pictures.grids import labelled_grid
from fmd.randomness import example_normal, named
from fmd.sampling.sampler import Sampler
from fmd.types import TypedKey

MOST_SHOWN = 4  # draws in the picture
DEVIATIONS, LEAST_SPREAD = 3, 0.5  # of coverage; a spread below half a grey level is rounding


@dataclass(frozen=True)
class Restored:
    """Images uint8 [N, H, W, C] with their measurements, as pictures of that shape, and draws [N, draws, H, W, C]."""

    truth: np.ndarray
    measured: np.ndarray
    draws: np.ndarray
    seconds: float

    @property
    def mean(self) -> np.ndarray:
        """Of the draws, float64 [N, H, W, C] in 0..255."""
        return np.asarray(self.draws.mean(axis=1, dtype=np.float64))

    @property
    def spread(self) -> np.ndarray:
        """The standard deviation of the draws, float64 [N, H, W, C] in grey levels."""
        return np.asarray(self.draws.std(axis=1, dtype=np.float64, ddof=min(1, self.draws.shape[1] - 1)))

    def figures(self) -> dict[str, float]:
        """PSNR in dB of the mean and of single draws, coverage of the truth by the mean and 3 deviations, seconds."""
        truth = self.truth.astype(np.float64)
        inside = np.abs(truth - self.mean) <= DEVIATIONS * np.maximum(self.spread, LEAST_SPREAD)
        return {
            "images": float(len(truth)),
            "draws": float(self.draws.shape[1]),
            "psnr_of_mean": psnr(self.mean, truth),
            "psnr_of_draw": psnr(self.draws, truth[:, None]),
            "coverage": float(inside.mean()),
            "seconds": round(self.seconds, 2),
        }

    def picture(self, scale: int) -> np.ndarray:
        """A row per image: truth, measurement, draws, their mean, their spread (white is half the range)."""
        shown = min(MOST_SHOWN, self.draws.shape[1])
        spread = np.clip(2 * self.spread, 0, 255).astype(np.uint8)
        mean = np.round(self.mean).astype(np.uint8)
        parts = [self.truth, self.measured, *np.moveaxis(self.draws[:, :shown], 1, 0), mean, spread]
        columns = np.stack(parts, axis=1).reshape(-1, *self.truth.shape[1:])
        return labelled_grid(columns, [""] * len(self.truth), scale=scale)


def measure_and_restore(
    sampler: Sampler,
    images: np.ndarray,
    labels: np.ndarray | None,
    operator: Operator,
    key: TypedKey,
    *,
    noise_std: float,
    draws: int,
    **options: Any,
) -> Restored:
    """Images uint8 measured with noise, and restored from that alone, told `labels` or untold."""
    known = operator.on(sampler.image_shape)
    x = to_unit(jnp.asarray(images))
    clean = known(x)
    noise = example_normal(named(key, "measurement"), jnp.arange(len(images)), clean.shape[1:])
    y = np.asarray(clean + noise_std * noise)
    start = time.perf_counter()
    restored = sampler.restore(y, known, key, labels, noise_std=noise_std, draws=draws, **options)
    seconds = time.perf_counter() - start
    shown = y if y.shape == images.shape else known.pseudo_inverse(jnp.asarray(y))  # the inverse of a blur is all noise
    return Restored(images, np.asarray(to_uint8(jnp.asarray(shown))), restored, seconds)


def psnr(found: np.ndarray, truth: np.ndarray) -> float:
    """Peak signal to noise in dB over all images, 255 the peak; infinite where they are equal."""
    square = float(np.mean((found.astype(np.float64) - truth) ** 2))
    return float("inf") if square == 0 else 10 * np.log10(255**2 / square)


def parse_operator(text: str) -> Operator:
    """An operator from words: "blur:std=2", or several one after the other, "grey+block_average:factor=4".

    Raises ValueError for what is no operator, or has other parameters.
    """
    parts = []
    for part in text.split("+"):
        name, _, rest = part.partition(":")
        pairs = [pair.partition("=") for pair in rest.split(",") if pair]
        if not all(equals for _, equals, _ in pairs):
            raise ValueError(f"--operator={text}; write a name with its parameters, e.g. mask:hidden=lower_half")
        parts.append(operators.get(name, **{key: literal(value) for key, _, value in pairs}))
    return parts[0] if len(parts) == 1 else operators.get("compose", parts=parts)
