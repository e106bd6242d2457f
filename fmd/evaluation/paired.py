"""Images made from images, judged: what `--mode=eval --paired` measures of a model that is told an image."""

from collections.abc import Mapping

import numpy as np
from absl import logging
from jaxtyping import UInt8

from fmd.blocks import Plain
from fmd.config import Settings
from fmd.data import ImageDataset
from fmd.evaluation import features
from fmd.evaluation.figures import knows_classes
from fmd.evaluation.restored import Restored, psnr
from fmd.randomness import stream
from fmd.sampling.inputs import draw, enlarged, of_test_images, told_an_image
from fmd.sampling.sampler import Sampler

WINDOW = 11  # pixels of SSIM's Gaussian window, as in its paper


def check(sampler: Sampler) -> None:
    """Raises ValueError for a model that is told no image."""
    if not told_an_image(sampler.info):
        raise ValueError("--paired compares with the image behind a condition; this model is told no image")


def measure(
    sampler: Sampler,
    dataset: ImageDataset,
    settings: Settings,
    *,
    examples: int,
    draws: int,
    seed: int,
    quiet: bool = False,
) -> Plain:
    """How near draws come to the test images that their conditions belong to.

    Of single draws, of their mean (near the mean of all images that fit the condition), and of the condition itself
    enlarged by a bicubic: PSNR in dB, SSIM, and the share that the data set's classifier reads right, where there is
    one. `spread` is the deviation of the draws in grey levels, `coverage` as in `fmd.evaluation.restored`.
    """
    check(sampler)
    asked = of_test_images(sampler.info, dataset, examples)
    drawn = draw(sampler, asked, stream(seed, "eval"), settings, draws=draws, quiet=quiet)
    assert asked.truth is not None
    truth = asked.truth
    found = Restored(truth, truth, drawn.images.reshape(-1, draws, *sampler.image_shape), 0.0)
    kinds = {
        "draw": found.draws[:, 0],
        "mean": np.round(found.mean).astype(np.uint8),
        "condition": enlarged(sampler.info, asked.y, "cubic"),
    }
    figures: Plain = {key: value for key, value in found.figures().items() if key in ("images", "draws", "coverage")}
    figures["spread"] = float(found.spread.mean())
    for name, images in kinds.items():
        figures[f"psnr_of_{name}"] = psnr(images, truth)
        figures[f"ssim_of_{name}"] = ssim(images, truth)
    return figures | _accuracies(sampler, dataset, kinds | {"truth": truth}, asked.labels)


def _accuracies(sampler: Sampler, dataset: ImageDataset, kinds: Mapping[str, np.ndarray], labels: np.ndarray) -> Plain:
    found: Plain = {}
    if features.name_for(dataset) != "domain":  # no others know its classes, and their weights may not be at hand
        return found
    extractor = features.get("domain", dataset)
    for name, images in kinds.items():
        _, logits = next(features.compute(extractor, iter([images]), sampler.layout))
        if knows_classes(logits, dataset):
            found[f"accuracy_of_{name}"] = float((logits.argmax(axis=1) == labels).mean())
    return found


def ssim(images: UInt8[np.ndarray, "N H W C"], truth: UInt8[np.ndarray, "N H W C"]) -> float | None:
    """The mean structural similarity of images, with the Gaussian window of its paper (Wang et al. 2004).

    None for images smaller than the window, and without scikit-image.
    """
    try:
        from skimage.metrics import structural_similarity
    except ImportError:
        logging.warning("no SSIM: it needs scikit-image, pip install 'flow-matching-designs[ssim]'")
        return None
    if min(images.shape[1:3]) < WINDOW:
        return None
    options = {"data_range": 255, "gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    pairs = zip(images, truth, strict=True)
    return float(np.mean([structural_similarity(a, b, channel_axis=-1, **options) for a, b in pairs]))
