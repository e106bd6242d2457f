"""Fashion-MNIST in one evaluation of the network: the recipe of configs/mnist_one_step.py, with more of its jumps.

    python -m fmd.main --config=configs/fashion_mnist_one_step.py

Clothes have more kinds than digits, and the last stage finds none that its beginning lacks: MeanFlow takes more steps.
The last stage sharpens by itself, so its teacher is guided less than the flow. Figures are in
experiments/reference; on an accelerator nothing is measured yet.

The model `fashion_mnist` that ships with fmd is the CPU recipe after 250 steps of its last stage, with the figures of
one evaluation and of 20:

    python -m fmd.main --config=configs/fashion_mnist_one_step.py --config.checkpoint.every=250 \\
        --config.checkpoint.keep_every=250
    C=runs/fashion_mnist_one_step/checkpoints/250
    F="--mode=eval --checkpoint=$C --classes=balanced"
    python -m fmd.main $F --solver=midpoint --steps=5 --weight=2 && mv $C/eval.json $C/eval_flow.json
    python -m fmd.main $F && rm -r fmd/shipped/fashion_mnist
    python -m fmd.main --mode=export --compact --checkpoint=$C --out=fmd/shipped/fashion_mnist
"""

import runpy
from pathlib import Path

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    recipe = runpy.run_path(str(Path(__file__).with_name("mnist_one_step.py")))
    config: ConfigDict = recipe["get_config"]("fashion_mnist", weight=2.0, last=1.6)
    config.on_cpu.train.num_steps = 1000
    config.on_cpu.first.train.num_steps = 4000
    return config
