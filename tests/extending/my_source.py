"""A data source of one's own, with a condition beside the label: a function that returns an ImageDataset."""

import numpy as np

from fmd.data import ImageDataset, Split, register_source


@register_source("my_source")
def my_source(size: int = 64):
    def split(count: int) -> Split:
        random = np.random.default_rng(count)
        labels = np.arange(count, dtype=np.int32) % 4
        brightness = random.uniform(0, 1, (count, 1)).astype(np.float32)
        images = 60 * labels[:, None] + 60 * brightness * random.uniform(0, 1, (count, 64))
        return Split(images.reshape(-1, 8, 8, 1).astype(np.uint8), {"label": labels, "brightness": brightness})

    return ImageDataset("my_source", split(size), split(40), 4, "made up")
