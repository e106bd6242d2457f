"""Draws the moving picture of the README, with the model `mnist` that ships: digits from noise, and a walk of noises.

    python experiments/reference/moving_digits.py                # writes moving_digits.webp beside this file

Above, the flow of ten digits: t from 0 to 1, 10 midpoint steps, and a rest at the end. Below, ten digits by one
evaluation of the network each frame, while their noise goes once round the circle cos(a) n1 + sin(a) n2 of two noises,
each point of which is again standard normal. 16 levels of grey keep it small.
"""

import argparse
from pathlib import Path

import jax
import numpy as np

import fmd
from fmd.pictures import animation
from fmd.sampling.trajectory import trajectory

LEVEL = 17  # 255 / 15


def main() -> None:
    parser = argparse.ArgumentParser(description="Draws the moving picture of the README.")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("moving_digits.webp"))
    path = parser.parse_args().out
    sheets = animation.grid_frames(frames(40), columns=10, scale=2)
    animation.save_animation(path, sheets, frame_seconds=0.1, hold_seconds=0.1, overwrite=True)
    print(f"{path}: {len(sheets)} frames, {path.stat().st_size / 1000:.0f} kB")


def frames(count: int) -> np.ndarray:
    """Twenty digits at each of `count` times, two thirds of them on the way, uint8 [count, 20, 28, 28, 1]."""
    sampler, key = fmd.load("mnist"), jax.random.key(0)
    digits = np.arange(10) % sampler.num_classes
    times = tuple(np.linspace(0, 1, count * 2 // 3))
    flow = trajectory(sampler, digits, key, times=times, weight=1.0, solver="midpoint", steps=10)
    flow = flow[np.minimum(np.arange(count), len(flow) - 1)]
    first, second = np.asarray(jax.random.normal(jax.random.fold_in(key, 1), (2, 10, *sampler.image_shape)))
    angles = 2 * np.pi * np.arange(count) / count
    jumps = [sampler(digits, noise=np.float32(np.cos(angle) * first + np.sin(angle) * second)) for angle in angles]
    return np.uint8(np.round(np.concatenate([flow, np.stack(jumps)], axis=1) / LEVEL)) * np.uint8(LEVEL)


if __name__ == "__main__":
    main()
