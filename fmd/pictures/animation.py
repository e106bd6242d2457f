"""Animations: frames as one .gif or .webp file.

The same frames give the same bytes. Pillow is loaded when needed.
A GIF has 256 colours per frame: grey is exact, colour nearly so. WebP is written without loss and smaller.
"""

import base64
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fmd.files import atomic_path
from fmd.pictures.grids import as_image, image_grid

SUFFIXES = (".gif", ".webp")
FRAME_SECONDS = 0.08
HOLD_SECONDS = 2.0
LONGEST_SIDE = 1024  # pixels; each frame is a picture of this size


def grid_frames(
    images: np.ndarray, *, columns: int | None = None, scale: int = 1, longest_side: int = LONGEST_SIDE
) -> np.ndarray:
    """`image_grid` at each time: uint8 [T, N, H, W, C] -> frames uint8 [T, .., .., 1 or 3]."""
    return np.stack([image_grid(at_t, columns=columns, scale=scale, longest_side=longest_side) for at_t in images])


def save_animation(
    path: Path,
    frames: np.ndarray,
    *,
    frame_seconds: float = FRAME_SECONDS,
    hold_seconds: float = HOLD_SECONDS,
    overwrite: bool = False,
) -> None:
    """Writes frames as an animation that repeats for ever; the file appears whole or not at all.

    Args:
        path: ends in .gif or .webp, which decides the format.
        frames: uint8 [T, H, W, 1 or 3]. Equal neighbours become one frame that is shown for longer.
        frame_seconds: how long a frame is shown; viewers slow down below 0.02.
        hold_seconds: how long the last one is.
        overwrite: replace a file that exists.

    Raises:
        ValueError: for another suffix, other frames, or times that are not positive.
        FileExistsError: when the file exists and is not to be overwritten.
    """
    path = Path(path)
    check_suffix(path)
    if frames.dtype != np.uint8 or frames.ndim != 4 or 0 in frames.shape or frames.shape[-1] not in (1, 3):
        raise ValueError(f"an animation takes uint8 frames [T, H, W, 1 or 3], T > 0, not {frames.dtype} {frames.shape}")
    if not min(frame_seconds, hold_seconds) >= 0.01:
        raise ValueError(f"frame_seconds={frame_seconds} and hold_seconds={hold_seconds} must be at least 0.01")
    milliseconds = [round(1000 * frame_seconds)] * (len(frames) - 1) + [round(1000 * hold_seconds)]
    first, *others = map(as_image, frames)
    options = {"format": "GIF", "optimize": False} if path.suffix == ".gif" else {"format": "WEBP", "lossless": True}
    with atomic_path(path, overwrite=overwrite) as temporary:
        first.save(temporary, save_all=True, append_images=others, duration=milliseconds, loop=0, **options)


@dataclass(frozen=True)
class Shown:
    """An animation that plays where it ends a cell of a notebook."""

    path: Path

    def _repr_html_(self) -> str:
        path = Path(self.path)
        check_suffix(path)
        return f'<img src="data:image/{path.suffix[1:]};base64,{base64.b64encode(path.read_bytes()).decode()}">'


def check_suffix(path: Path) -> None:
    """ValueError where the name does not end in one of SUFFIXES."""
    if path.suffix not in SUFFIXES:
        raise ValueError(f"{path}: the name of an animation must end in {' or '.join(SUFFIXES)}")
