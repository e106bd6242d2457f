"""Your own images: a folder with one sub-folder per class, or a folder of images without classes.

    PATH/cats/a.jpg  PATH/dogs/b.png        class-conditional; the classes are the sub-folders, 2 before 10
    PATH/a.jpg  PATH/b.png                  no labels: an unconditional model, trained and sampled by the same commands
    PATH/train/...  PATH/test/...           either of these in each; Training, val, dev, ... are known as well.
                                            Without a test folder a tenth is held out

    python -m fmd.main --config=configs/folder.py --config.data.params.path=PATH --workdir=runs/NAME
    python -m fmd.main --mode=sample --checkpoint=runs/NAME --outfile=samples.png

Size. `image_size` is one number for squares or "(height, width)". Every image is cropped to the largest centred
rectangle of these proportions and scaled to the size (Lanczos); `image_size=None` takes the files as they are, which
must then be of one size.

Channels. `channels=3` makes grey images colour ones, `1` the other way round; transparency is laid over white. With
None the files must agree.

Files that cannot be read are left out; the log counts them by reason and names the first. It also says what else was
not taken, and the classes with counts. Decoded images are kept below ~/.cache/fmd until a file changes, so that only
the first start takes time.

Guidance. Where there are classes, sample with `--weight=2` or set `config.sample.guidance.weight`; without classes
there is nothing to guide, and any weight but 1 is refused.

More than the folders say: a table `metadata.csv` or `metadata.jsonl` beside the images, with a column `file_name`, has
the classes (`--config.data.params.label=species`) and what else the network is told: numbers, texts, lists, images
(`--config.data.params.conditions="('age','low')"`). `fmd.data.tables` shows one. Pairs: configs/folder_pairs.py.

An archive of arrays in place of the folder: --config.data.source=npz --config.data.params.path=X.npz (arrays `images`
uint8 [N, H, W, C] and, if there are any, `labels`).

The CPU block was trained on CIFAR-10 as 60,000 JPEG files (experiments/reference); the full recipe has not been.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    config = ConfigDict()
    config.seed = 0
    config.data = {"source": "folder", "params": {"path": "images", "image_size": 64, "channels": 3}, "flip": True}

    # 64 pixels as 32x32 patches of 2x2, then 16 and 8 with attention. For other sizes: the coarsest level at 4 to 8.
    config.model = {"name": "unet", "base_channels": 96, "channel_multipliers": (1, 2, 2), "num_res_blocks": 2,
                    "patch_size": 2, "attention_resolutions": (8,), "dropout": 0.1,
                    "dtype": "bfloat16"}  # fmt: skip
    # Larger images stay legible under more noise: times are shifted towards it (arXiv 2403.03206).
    # The network predicts the image, and the loss is that of the velocity (arXiv 2511.13720). One that predicts the
    # velocity has to hand on the noise of every pixel: what it misses is a checkered grain of the patches.
    config.path = {"prediction": "data", "times": {"name": "logit_normal", "stratified": True, "shift": 1.5}}
    config.method = {"name": "flow_matching", "edge": 0.05}

    config.train = {"num_steps": 50_000, "batch_size": 128, "label_dropout": 0.1, "weighting": "velocity"}
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
        "optimizer": {"name": "muon", "learning_rate": 6e-3, "warmup_steps": 0},
        "ema": {"decays": (0.99,)},
        "checkpoint": {"every": 500},
        "log": {"eval_every": 500, "eval_examples": 256, "samples_every": 500},
    }  # fmt: skip
    return config
