"""The source `folder`: your own image files, of any size.

`fmd.data.layout` shows the layouts.

Without a test folder a part of each class is held out. What is not taken is counted and said. One class alone is
allowed, and the log says so.
"""

import numpy as np
from absl import logging

from fmd.data import decoding, images, layout
from fmd.data.arrays import full_range
from fmd.data.dataset import ImageDataset
from fmd.data.sources import register_source
from fmd.data.split import Split, split_off
from fmd.files import expand, printable


@register_source("folder")
def load_folder(
    path: str, image_size: images.Size = None, channels: int | None = None, test_fraction: float = 0.1
) -> ImageDataset:
    """Images under `path`, cropped at the centre and resized.

    Args:
        path: the folder, laid out as `fmd.data.layout` shows.
        image_size: one number for squares, or (height, width); None where all files have the same size already.
        channels: 1 or 3 to convert every image; None takes what the files have, which must then agree.
        test_fraction: the part of each class that is held out where there is no test folder.

    Raises:
        FileNotFoundError: for a missing folder or one without images.
        ValueError: for mixed channel counts or sizes, for classes that only the test split has, and where no image of a
            class can be read.
    """
    folder = expand(path)
    shown = printable(folder)
    if channels not in (None, 1, 3):
        raise ValueError(f"channels must be 1 or 3, or None to take what the files have, got {channels}")
    found = layout.find(folder)
    if not_taken := found.not_taken():
        logging.warning("folder %s: not taken: %s", shown, not_taken)
    if len(found.classes) == 1:
        only = printable(found.classes[0])
        logging.info("folder %s has one class only, '%s': labels will carry no information", shown, only)

    listing = [*found.train, *(found.test or [])]
    files = [file for file, _ in listing]
    decoded = decoding.decode(files, images.height_width(image_size), channels, folder.resolve().name or "root")
    bad = len(files) - len(decoded.images)
    if bad:
        why = decoding.by_reason(files, decoded.reasons, folder)
        logging.warning("folder %s: %d of %d files cannot be read and are left out: %s", shown, bad, len(files), why)
    if (decoded.pages > 1).any():
        stacks, pages = int((decoded.pages > 1).sum()), int(decoded.pages[decoded.pages > 1].sum())
        logging.warning("folder %s: %d files hold %d pages; the first of each is taken", shown, stacks, pages)
    if decoded.bits:
        top = 2**decoded.bits - 1
        logging.info("folder %s: 16-bit grey uses %d bits: 0 to %d become 0 to 255", shown, decoded.bits, top)

    good = decoded.good
    labels = np.array([label for _, label in listing], np.int32)
    for label, name in enumerate(found.classes):
        of_class = labels[: len(found.train)] == label
        if not good[: len(found.train)][of_class].any():
            lost = [r if same else "" for r, same in zip(decoded.reasons, of_class, strict=False)]
            why = decoding.by_reason(files[: len(lost)], lost, folder)
            raise ValueError(
                f"no image of class '{printable(name)}' in {shown} can be read: {why}; repair its files or remove it"
            )
    (pixels,) = full_range([decoded.images], shown)
    whole = Split(pixels, labels[good])
    if found.test is None:
        train, test = split_off(whole, test_fraction)
    else:
        count = int(good[: len(found.train)].sum())
        train, test = whole.take(np.arange(count)), whole.take(np.arange(count, len(whole)))
    left_out = f", {bad} unreadable files left out" if bad else ""
    names = tuple(printable(name) for name in found.classes)
    return ImageDataset(
        printable(folder.name or folder.resolve().name),
        train,
        test,
        len(names),
        f"from the image files in {shown}{left_out}",
        names or None,
    )
