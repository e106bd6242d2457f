"""MNIST with a small network and no guidance when sampling: the yardstick for changes.

    python -m fmd.main --config=configs/mnist_baseline.py

On one modern accelerator: meant for about two minutes; not measured yet. On a CPU the `on_cpu` block is used instead;
what that costs and reaches is in experiments/reference.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    config = ConfigDict()
    config.seed = 42
    config.data = {"source": "mnist"}

    # 28, 14 and 7 pixels. Half the width of mnist_cfg_strong and no attention.
    config.model = {"name": "unet", "base_channels": 32, "channel_multipliers": (1, 2, 4), "num_res_blocks": 2,
                    "dtype": "bfloat16"}  # fmt: skip
    config.path = {"times": {"name": "uniform", "stratified": True}}  # stratified: less noise in the gradient

    config.train = {"num_steps": 10_000, "batch_size": 256, "label_dropout": 0.1,
                    "steps_per_dispatch": 10}  # fmt: skip  # a step takes milliseconds: let Python rest
    config.optimizer = {"learning_rate": 1e-3, "warmup_steps": 300, "decay": "cosine"}
    config.ema = {"decays": (0.999,)}  # a tenth of the run
    config.sample = {"guidance": {"name": "cfg", "weight": 1.0}, "solver": "midpoint", "steps": 10}
    config.checkpoint = {"every": 1000}
    config.log = {"every": 50, "eval_every": 1000, "samples_every": 1000}

    config.on_cpu = {
        # 2x2 pixels become channels, so that all work happens at 14x14 and 7x7.
        "model": {"base_channels": 32, "channel_multipliers": (1, 2), "num_res_blocks": 1, "patch_size": 2,
                  "dtype": "float32"},
        "train": {"num_steps": 1500, "batch_size": 64, "steps_per_dispatch": 1},
        # In so few steps Muon comes much further than Adam; over long runs it has not been tried.
        "optimizer": {"name": "muon", "learning_rate": 6e-3, "warmup_steps": 0},
        "ema": {"decays": (0.99,)},
        "checkpoint": {"every": 500},
        "log": {"eval_every": 500, "samples_every": 500},
    }  # fmt: skip
    return config
