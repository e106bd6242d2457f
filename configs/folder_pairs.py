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
follows it as the data do. Images are not mirrored (`flip`): their inputs would not be.

The CPU recipe, trained on 5,000 grey pictures with their colours, is in experiments/reference/conditions.md; on an
accelerator the recipe has not run yet.
"""

import runpy
from pathlib import Path

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    config: ConfigDict = runpy.run_path(str(Path(__file__).with_name("folder.py")))["get_config"]()
    config.data = {"source": "pairs", "params": {"path": "pairs", "image_size": 64, "channels": 3}, "flip": False}
    return config
