"""Your own pairs, image to image: a folder of images and a folder of what each is to be made from.

    PATH/input/1.jpg  PATH/target/1.png             matched by name, whatever the suffix, in folders of any depth
    PATH/train/input/...  PATH/train/target/...     with a test folder beside; or PATH/input/train/..., the other way
                                                    round. Without a test folder a tenth is held out
    PATH/target/cats/1.png  PATH/input/cats/1.png   classes, if there are any: the folders below `target`

    python -m fmd.main --config=configs/folder_pairs.py --config.data.params.path=PATH --workdir=runs/NAME
    python -m fmd.main --mode=sample --checkpoint=runs/NAME --outfile=samples.png

The network is told the part `input`, as planes beside the image. Sampling takes inputs of the test split; in Python

    sampler = fmd.load("runs/NAME")
    sampler({"input": inputs}, jax.random.key(0))   # uint8 [N, height, width, channels] -> uint8 [N, H, W, C]

Size. Both are cropped to the largest centred rectangle of the proportions of `image_size` and scaled to it, so that
they stay one upon the other. Inputs of another size, as to make pictures sharp: `--config.data.params.input_size=16`.

Other names and several inputs: `--config.data.params.target=photo --config.data.params.conditions="('depth','edges')"`.
A mask is of kind mask: `--config.data.params.conditions="{'outline': 'mask'}"`.

Files without a partner, and pairs of which one cannot be read, are left out; the log counts and names them.

Guidance. A tenth of the inputs is not told in training, so that `--weight=1.5` follows the input more closely; 1
follows it as the data do. Images are not mirrored (`flip`): their inputs would not be. Not run at full size yet.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    config = ConfigDict()
    config.seed = 0
    config.data = {"source": "pairs", "params": {"path": "pairs", "image_size": 64, "channels": 3}, "flip": False}

    # The network of configs/folder.py: 64 pixels as 32x32 patches of 2x2, then 16 and 8 with attention.
    config.model = {"name": "unet", "base_channels": 96, "channel_multipliers": (1, 2, 2), "num_res_blocks": 2,
                    "patch_size": 2, "attention_resolutions": (8,), "dropout": 0.1,
                    "dtype": "bfloat16"}  # fmt: skip
    # Larger images stay legible under more noise: times are shifted towards it (arXiv 2403.03206).
    config.path = {"times": {"name": "logit_normal", "stratified": True, "shift": 1.5}}

    config.train = {"num_steps": 50_000, "batch_size": 128, "label_dropout": 0.1}
    config.optimizer = {"learning_rate": 3e-4, "warmup_steps": 1000, "decay": "cosine"}
    config.ema = {"decays": (0.9995,)}
    config.sample = {"guidance": {"name": "cfg", "weight": 1.0}, "solver": "midpoint", "steps": 20}
    config.checkpoint = {"every": 2500}
    config.log = {"every": 50, "eval_every": 2500, "samples_every": 2500}

    config.on_cpu = {
        "data": {"params": {"image_size": 32}},
        "model": {"base_channels": 32, "channel_multipliers": (1, 2), "num_res_blocks": 1, "attention_resolutions": (),
                  "dropout": 0.0, "dtype": "float32"},
        "train": {"num_steps": 2000, "batch_size": 32},
        "optimizer": {"learning_rate": 1e-3, "warmup_steps": 100},
        "ema": {"decays": (0.99,)},
        "checkpoint": {"every": 500},
        "log": {"eval_every": 500, "eval_examples": 256, "samples_every": 500},
    }  # fmt: skip
    return config
