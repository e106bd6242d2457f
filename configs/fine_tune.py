"""A network that is trained already, trained further on other images: MNIST's digits become Fashion-MNIST.

    python -m fmd.main --config=configs/mnist_cfg_strong.py
    python -m fmd.main --config=configs/fine_tune.py

It begins with the run of the first command, or with any run or export of the same network: `--config.init_from=RUN`.
All parameters are trained. `--config.train.freeze="('down_*','time/*')"` leaves some as they are.

Low-rank factors beside frozen weights, and the rows of the classes; what it stores are ordinary weights:

    python -m fmd.main --config=configs/fine_tune.py --workdir=runs/fine_tune_lora \\
        --config.lora.rank=8 --config.lora.train="('label/table/embedding',)"

An eleventh class from 100 pictures of it, uint8 [100, 28, 28], among as many of each digit so that these are not
forgotten. The old classes keep their rows in the table of labels, the new one gets one:

    import numpy as np
    from fmd import data
    digits = data.load("mnist").train
    images = np.concatenate([digits.images[:1000, :, :, 0], pictures])
    np.savez("eleven.npz", images=images, labels=np.append(digits.labels[:1000], np.full(100, 10)))

    python -m fmd.main --config=configs/fine_tune.py --workdir=runs/eleven --config.data.source=npz \\
        --config.data.params.path=eleven.npz --config.train.num_steps=300 --config.checkpoint.every=100 \\
        --config.lora.rank=8 --config.lora.train="('label/table/embedding',)"

What all three reach on a CPU is in experiments/reference/conditions.md; an accelerator is not measured.
"""

import runpy
from pathlib import Path

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    # The network, the path and the batches are those of the run that it begins with.
    recipe = runpy.run_path(str(Path(__file__).with_name("mnist_cfg_strong.py")))
    config: ConfigDict = recipe["get_config"]()
    config.init_from = "runs/mnist_cfg_strong"
    config.data = {"source": "fashion_mnist"}
    config.train.num_steps = 4000
    config.optimizer.learning_rate = 3e-4
    config.optimizer.warmup_steps = 100
    config.ema.decays = (0.998,)
    config.sample.guidance.weight = 2.0
    config.checkpoint.every = 1000
    config.log.update({"eval_every": 1000, "samples_every": 1000})

    config.on_cpu.train.num_steps = 1000
    config.on_cpu.optimizer.learning_rate = 6e-3  # as from scratch; 2e-3 gives FID 5.5 in place of 2.9
    config.on_cpu.ema.decays = (0.99,)
    config.on_cpu.checkpoint.every = 250
    config.on_cpu.log = {"eval_every": 250, "samples_every": 500}
    return config
