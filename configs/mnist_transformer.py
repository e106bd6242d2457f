"""MNIST with a transformer in the place of the UNet: patches of 2 x 2 pixels, on a CPU of 4 x 4.

    python -m fmd.main --config=configs/mnist_transformer.py

On an accelerator not measured yet. On a CPU the `on_cpu` block is used instead; what that costs and reaches is in
experiments/reference.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    config = ConfigDict()
    config.seed = 123
    config.data = {"source": "mnist"}

    config.model = {"name": "transformer", "size": "XS", "patch_size": 2, "dropout": 0.1, "dtype": "bfloat16"}
    config.path = {"times": {"name": "stratified"}}

    config.train = {"num_steps": 20_000, "batch_size": 512, "label_dropout": 0.15,
                    "steps_per_dispatch": 10}  # fmt: skip  # a step takes milliseconds: let Python rest
    config.optimizer = {"learning_rate": 5e-4, "b2": 0.95, "warmup_steps": 500, "decay": "cosine"}
    config.ema = {"decays": (0.9995,)}  # a tenth of the run
    config.sample = {"guidance": {"name": "cfg", "weight": 1.5}, "solver": "midpoint", "steps": 5}
    config.checkpoint = {"every": 2000}
    config.log = {"every": 50, "eval_every": 2000, "samples_every": 2000}

    config.on_cpu = {
        "model": {"size": "tiny", "patch_size": 4, "dropout": 0.0, "dtype": "float32"},
        "train": {"num_steps": 1600, "batch_size": 64, "label_dropout": 0.1, "steps_per_dispatch": 1},
        "optimizer": {"name": "muon", "learning_rate": 6e-3, "b2": 0.999, "warmup_steps": 0},
        "ema": {"decays": (0.996,)},
        "checkpoint": {"every": 400},
        "log": {"eval_every": 400, "samples_every": 800},
    }  # fmt: skip
    return config
