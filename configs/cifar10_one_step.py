"""Class-conditional CIFAR-10 in one evaluation of the network, for an accelerator: as configs/mnist_one_step.py.

    pip install -e '.[tensorflow]'  # once, to prepare the data set; reading it needs '.[tfds]' alone
    python -m fmd.main --config=configs/cifar10_one_step.py

Not run yet. The network is smaller than that of configs/cifar10.py: meant for ten minutes on one large accelerator, not
for the best figures.
"""

from ml_collections import ConfigDict

WEIGHT = 1.5  # of the teacher's guidance, which the one step learns with the rest


def get_config() -> ConfigDict:
    config = ConfigDict()
    config.seed = 0
    config.data = {"source": "tfds", "params": {"name": "cifar10"}, "flip": True}
    config.model = {"name": "unet", "base_channels": 96, "channel_multipliers": (1, 2, 2), "num_res_blocks": 2,
                    "attention_resolutions": (16,), "embedding_dim": 384, "time_frequencies": (0.1, 5.0),
                    "dtype": "bfloat16"}  # fmt: skip
    config.path = {"times": {"name": "stratified"}}
    config.log = {"every": 50, "eval_every": 0}
    config.sample = {"guidance": {"name": "cfg", "weight": 1.0}, "solver": "jump", "steps": 1}
    config.train = {"num_steps": 1000, "batch_size": 256, "label_dropout": 0.1}
    config.method = {"name": "distribution_matching", "guidance": {"name": "cfg", "weight": WEIGHT}}
    config.teacher = "first/first/first"
    config.optimizer = {"name": "muon", "learning_rate": 3e-4, "b2": 0.99, "final_fraction": 0.3}
    config.ema = {"decays": (0.99,)}
    flow = {
        "method": {"name": "flow_matching"},
        "sample": {"guidance": {"name": "cfg", "weight": WEIGHT}, "solver": "midpoint", "steps": 10},
        "train": {"num_steps": 8000},
        "optimizer": {"learning_rate": 3e-3, "b2": 0.999, "final_fraction": 0.0},
        "ema": {"decays": (0.998,)},
    }
    taught = {"name": "mean_flow", "tangent": "teacher", "target": "teacher", "power": 0.0}
    # Runs before the last take over the parameters of a method of the same name, so steps are said in both.
    guided = {
        "method": taught | {"equal": 1.0, "steps": 0, "guidance": {"name": "cfg", "weight": WEIGHT}},
        "sample": {"solver": "midpoint", "steps": 10},
        "train": {"num_steps": 1000},
        "first": flow,
    }
    config.first = {
        "method": taught | {"equal": 0.35, "ends": 0.6, "steps": 4, "guidance": {"name": "cfg", "weight": 1.0}},
        "train": {"num_steps": 2000},
        "optimizer": {"learning_rate": 2e-3, "b2": 0.999, "final_fraction": 0.0},
        "ema": {"decays": (0.99,)},
        "first": guided,
    }
    return config
