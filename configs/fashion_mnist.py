"""Class-conditional Fashion-MNIST with classifier-free guidance.

    python -m fmd.main --config=configs/fashion_mnist.py

On one modern accelerator: meant for about five minutes; not measured yet. On a CPU the `on_cpu` block is used instead;
what that costs and reaches is in experiments/reference.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    config = ConfigDict()
    config.seed = 123
    config.data = {"source": "fashion_mnist"}

    # 28, 14 and 7 pixels; attention where it is cheap. The same network as for MNIST.
    config.model = {"name": "unet", "base_channels": 64, "channel_multipliers": (1, 2, 2), "num_res_blocks": 2,
                    "attention_resolutions": (7,), "dropout": 0.1, "dtype": "bfloat16"}  # fmt: skip
    # Stratified uniform times: logit-normal ones learn the ends of time badly, see experiments/reference.
    config.path = {"times": {"name": "stratified"}}

    # So that a background is black: five grey levels beyond black are as good as black.
    config.method = {"name": "flow_matching", "margin": 0.04}

    config.train = {"num_steps": 20_000, "batch_size": 512, "label_dropout": 0.15,
                    "steps_per_dispatch": 10}  # fmt: skip  # a step takes milliseconds: let Python rest
    config.optimizer = {"learning_rate": 1e-3, "warmup_steps": 500, "decay": "cosine"}
    config.ema = {"decays": (0.9995,)}  # a tenth of the run
    config.sample = {"guidance": {"name": "cfg", "weight": 2.0}, "solver": "midpoint", "steps": 5}
    config.checkpoint = {"every": 2000}
    config.log = {"every": 50, "eval_every": 2000, "samples_every": 2000}

    config.on_cpu = {
        # 2x2 pixels become channels, so that all work happens at 14x14 and 7x7, where convolutions are efficient.
        "model": {"base_channels": 48, "channel_multipliers": (1, 2), "num_res_blocks": 1, "patch_size": 2,
                  "embedding_dim": 192, "attention_resolutions": (), "dropout": 0.0, "dtype": "float32"},
        # Small batches: at this budget the number of steps counts for more than how quiet each one is.
        "train": {"num_steps": 2000, "batch_size": 64, "label_dropout": 0.1, "steps_per_dispatch": 1},
        # In so few steps Muon comes much further than Adam; over long runs it has not been tried.
        "optimizer": {"name": "muon", "learning_rate": 6e-3, "warmup_steps": 0},
        "ema": {"decays": (0.995,)},
        "sample": {"guidance": {"weight": 1.8}},
        "checkpoint": {"every": 500},
        "log": {"eval_every": 500, "samples_every": 1000},
    }  # fmt: skip
    return config
