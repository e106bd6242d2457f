"""MNIST digits of 28x28 pixels from 7x7: the network is told the means of 4x4 pixels.

    python -m fmd.main --config=configs/mnist_super_resolution.py
    python -m fmd.main --mode=sample --checkpoint=runs/mnist_super_resolution --outfile=larger.png
    python -m fmd.main --mode=sample --checkpoint=runs/mnist_super_resolution --condition=FOLDER --outfile=larger.png
    python -m fmd.main --mode=eval --checkpoint=runs/mnist_super_resolution --n_samples=500 --paired=500 --draws=16

The picture has a row for each test image: the small one, four draws, the truth. FOLDER holds your own small pictures.
Everything else is as in configs/mnist_denoise.py.
"""

import runpy
from pathlib import Path

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    recipe = runpy.run_path(str(Path(__file__).with_name("mnist_denoise.py")))["get_config"]
    config: ConfigDict = recipe(part="low", operator={"name": "block_average", "factor": 4})
    return config
