"""The source `digits`: scikit-learn's bundled scans of ten digits.

There are 1797 of 8x8 pixels. They need no download.
"""

import numpy as np

from fmd.data.dataset import ImageDataset
from fmd.data.sources import register_source
from fmd.data.split import Split, hold_out

TEST_PER_CLASS = 30


@register_source("digits")
def load_digits() -> ImageDataset:
    """1497 train and 300 test images, 8x8x1, ten classes.

    The values 0..16 become round(v * 255 / 16). The test split is fixed: 30 images of each class, evenly spaced over
    the file, so that it holds all writers as the train split does.
    """
    from sklearn.datasets import load_digits

    bundled = load_digits()
    images = np.round(bundled.images * (255 / 16)).astype(np.uint8)[..., None]
    whole = Split(images, bundled.target.astype(np.int32))
    test = hold_out(whole.labels, lambda n: TEST_PER_CLASS)
    return ImageDataset(
        "digits",
        train=whole.take(~test),
        test=whole.take(test),
        num_classes=10,
        provenance="from the installed scikit-learn",
        class_names=tuple("0123456789"),
    )
