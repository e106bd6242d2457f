"""Fashion-MNIST in one evaluation of the network: the recipe of configs/mnist_one_step.py under other weights.

    python -m fmd.main --config=configs/fashion_mnist_one_step.py

Jumps of the guidance that solves the flow best. Figures are in experiments/reference; on an accelerator nothing is
measured yet.

The model `fashion_mnist` that ships with fmd is that of this recipe on a CPU, with figures of one evaluation and of 10:

    C=runs/fashion_mnist_one_step/checkpoints/250
    F="--mode=eval --checkpoint=$C --classes=balanced"
    python -m fmd.main $F --n_samples=2000 --solver=midpoint --steps=5 --weight=1.0
    mv $C/eval.json $C/eval_flow.json
    python -m fmd.main $F && rm -r fmd/shipped/fashion_mnist
    python -m fmd.main --mode=export --compact --checkpoint=$C --out=fmd/shipped/fashion_mnist
"""

import runpy
from pathlib import Path

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    recipe = runpy.run_path(str(Path(__file__).with_name("mnist_one_step.py")))
    return recipe["get_config"]("fashion_mnist", weight=1.5, last=1.6)
