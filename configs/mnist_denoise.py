"""MNIST digits from noisy ones: the network is told the picture with noise of deviation 0.5 (pixels in [-1, 1]).

    python -m fmd.main --config=configs/mnist_denoise.py
    python -m fmd.main --mode=sample --checkpoint=runs/mnist_denoise --outfile=denoised.png
    python -m fmd.main --mode=sample --checkpoint=runs/mnist_denoise --condition=FOLDER --outfile=denoised.png
    python -m fmd.main --mode=eval --checkpoint=runs/mnist_denoise --n_samples=500 --paired=500 --draws=16

The picture has a row for each test image: the noisy one, four draws, the truth. FOLDER holds your own noisy pictures.
No label is told, so that it is the picture alone that decides. What it costs and reaches on a CPU is in
experiments/reference; on an accelerator it is not measured yet. For comparison the same network as a regression, which
predicts the mean of all that fits in place of a draw:

    python -m fmd.main --config=configs/mnist_denoise.py --config.method.name=regression \\
        --config.path.times.name=uniform --config.sample.steps=1 --workdir=runs/mnist_denoise_mean
"""

import runpy
from collections.abc import Mapping
from pathlib import Path

from ml_collections import ConfigDict

NOISE = {"name": "identity", "noise_std": 0.5}


def get_config(recipe: str = "mnist_cfg_strong", part: str = "noisy", operator: Mapping = NOISE) -> ConfigDict:
    """A recipe's config, its network told the image as `operator` leaves it and no label."""
    config: ConfigDict = runpy.run_path(str(Path(__file__).with_name(f"{recipe}.py")))["get_config"]()
    config.data.derive = {part: dict(operator)}
    config.data.told = (part,)
    # Large parts of the pictures are black: what overshoots there is no error.
    config.method = {"name": "flow_matching", "clip_data": True}
    config.sample.guidance.weight = 1.0  # draws of all images that fit; more would sharpen them
    return config
