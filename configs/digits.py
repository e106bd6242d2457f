"""The 8x8 digits that are installed with fmd: nothing to download, the quickest way to see it work.

python -m fmd.main --config=configs/digits.py
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    config = ConfigDict()
    config.seed = 0
    config.data = {"source": "digits"}

    # 8x8 and 4x4 levels. The images are so small that no pixels are folded into channels.
    config.model = {"name": "unet", "base_channels": 32, "channel_multipliers": (1, 2), "num_res_blocks": 1,
                    "embedding_dim": 128}  # fmt: skip
    # Stratified times even out the loss within a batch; logit-normal ones go where the loss can be lowered
    # (arXiv 2403.03206).
    config.path = {"times": {"name": "logit_normal", "stratified": True}}

    config.train = {"num_steps": 2000, "batch_size": 64, "label_dropout": 0.1}
    config.optimizer = {"learning_rate": 2e-3, "warmup_steps": 100, "decay": "cosine"}
    config.ema = {"decays": (0.99,)}  # a tenth of the run, after its warm-up
    config.sample = {"guidance": {"name": "cfg", "weight": 2.0}, "solver": "midpoint", "steps": 10}
    config.checkpoint = {"every": 500}
    config.log = {"every": 50, "eval_every": 500, "eval_examples": 360, "samples_every": 500}
    return config
