"""Fashion-MNIST from upper halves: the network is told the picture with its lower half hidden.

    python -m fmd.main --config=configs/fashion_mnist_inpaint.py
    python -m fmd.main --mode=sample --checkpoint=runs/fashion_mnist_inpaint --outfile=whole.png
    python -m fmd.main --mode=eval --checkpoint=runs/fashion_mnist_inpaint --n_samples=500 --paired=500 --draws=16

The picture has a row for each test image: the upper half, four draws, the truth. Another part is hidden by
`--config.data.derive.seen.hidden=centre`, or left_half, right_half, upper_half. Everything else is as in
configs/mnist_denoise.py.
"""

import runpy
from pathlib import Path

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    recipe = runpy.run_path(str(Path(__file__).with_name("mnist_denoise.py")))["get_config"]
    operator = {"name": "mask", "hidden": "lower_half"}
    config: ConfigDict = recipe("fashion_mnist", part="seen", operator=operator)
    return config
