"""Fashion-MNIST in one evaluation of the network: the recipe of configs/mnist_one_step.py, with stronger guidance.

    python -m fmd.main --config=configs/fashion_mnist_one_step.py

Its clothes are legible, but poor in kinds so far; figures in experiments/reference.
"""

import runpy
from pathlib import Path

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    recipe = runpy.run_path(str(Path(__file__).with_name("mnist_one_step.py")))
    config: ConfigDict = recipe["get_config"]("fashion_mnist", weight=2.0)
    return config
