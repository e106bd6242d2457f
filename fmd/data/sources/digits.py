"""The source `digits`: 1797 small scans of ten handwritten digits.

They lie beside this file: `images` uint8 [1797, 8, 8] of 0..16 and `labels`, as scikit-learn has them, the test split
of E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI Machine Learning Repository 1998
(doi 10.24432/C50P49, licence CC BY 4.0).
"""

from pathlib import Path

import numpy as np

from fmd.data.dataset import ImageDataset
from fmd.data.sources import register_source
from fmd.data.split import Split, hold_out

FILE = Path(__file__).with_name("digits.npz")
TEST_PER_CLASS = 30


@register_source("digits")
def load_digits() -> ImageDataset:
    """1497 train and 300 test images, 8x8x1, ten classes.

    The values 0..16 become round(v * 255 / 16). The test split is fixed: 30 images of each class, evenly spaced over
    the file, so that it holds all writers as the train split does.
    """
    with np.load(FILE) as bundled:
        images = np.round(bundled["images"] * (255 / 16)).astype(np.uint8)[..., None]
        whole = Split(images, bundled["labels"].astype(np.int32))
    test = hold_out(whole.labels, lambda n: TEST_PER_CLASS)
    return ImageDataset(
        "digits",
        train=whole.take(~test),
        test=whole.take(test),
        num_classes=10,
        provenance="installed with fmd",
        class_names=tuple("0123456789"),
    )
