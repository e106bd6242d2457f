"""ImageNet at 64 x 64 pixels with a transformer of size B, patches of 4 x 4 pixels, for several accelerators.

    pip install -e '.[tensorflow]'  # once, to prepare the data set; reading it needs '.[tfds]' alone
    python -m fmd.main --config=configs/imagenet64.py

Not trained yet; a test takes four steps of it at a small size. A patch has 48 numbers, far fewer than the network is
wide, so the velocity is as good to predict as the image (arXiv 2511.13720, table 2: 3.46 and 3.55 of FID at B/4); else
the recipe is that of configs/imagenet256.py, with times nearer to the middle.
"""

import runpy
from pathlib import Path

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    config: ConfigDict = runpy.run_path(str(Path(__file__).with_name("imagenet256.py")))["get_config"]()
    config.data.params = {"name": "imagenet_resized/64x64", "stream": True}
    config.model.patch_size = 4
    config.path = {"times": {"name": "logit_normal", "mean": -0.4, "std": 0.8}}
    config.method = {"name": "flow_matching"}
    config.train.weighting = "prediction"
    return config
