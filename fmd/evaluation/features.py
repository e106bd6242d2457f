"""What samples are compared by: functions from uint8 images to feature vectors and, if they classify, logits.

    domain      the classifier that comes with fmd for this data set: mnist     .domain
    inception   the InceptionV3 of the original FID, for larger images; its weights are a download     .inception
    pixels      the pixels themselves, for images of a few hundred numbers
    auto        domain where there is one, pixels up to 256 numbers an image, else inception

Your own is a function from the data set to an `Extractor`, registered by name:

    @register_features("mine")
    def mine(dataset):
        return Extractor("mine-1", params, apply)       # apply(params, images uint8 [B, H, W, C]) -> (features, logits)
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

from fmd.data import ImageDataset
from fmd.evaluation import domain
from fmd.utils.compile import cpu_compiler_options
from fmd.utils.distributed import Layout, replicate, split_batch
from fmd.utils.pixels import to_unit

BATCH = 500
MOST_PIXELS = 256  # numbers per image up to which `auto` compares the pixels themselves


class Extractor(NamedTuple):
    """A pure function of images, with a name that changes whenever its numbers do.

    name     of the features and their version; part of the key of cached statistics, and recorded with every figure
    params   arrays for `apply`
    apply    (params, uint8 [B, H, W, C]) -> (features float32 [B, D], logits [B, K] or None); called inside jit
    """

    name: str
    params: Any
    apply: Callable[[Any, jax.Array], tuple[jax.Array, jax.Array | None]]


Builder = Callable[[ImageDataset], Extractor]
_BUILDERS: dict[str, Builder] = {}


def register_features(name: str) -> Callable[[Builder], Builder]:
    """Decorator that makes a function from a data set to an `Extractor` available by name; ValueError if taken."""

    def register(builder: Builder) -> Builder:
        if name in _BUILDERS or name == "auto":
            raise ValueError(f"features named {name!r} are already registered; choose another name")
        _BUILDERS[name] = builder
        return builder

    return register


def get(name: str, dataset: ImageDataset) -> Extractor:
    """The features called `name`, for the images of `dataset`.

    Raises:
        KeyError: for an unknown name.
        ValueError, FileNotFoundError: where these features do not fit the images, or their weights are not at hand.
    """
    if name == "auto":
        name = _automatic(dataset)
    if name not in _BUILDERS:
        raise KeyError(f"unknown features {name!r}; choose one of auto, {', '.join(sorted(_BUILDERS))}")
    return _BUILDERS[name](dataset)


def _automatic(dataset: ImageDataset) -> str:
    if dataset.name in domain.FILES and dataset.image_shape == domain.IMAGE_SHAPE:
        return "domain"
    return "pixels" if np.prod(dataset.image_shape) <= MOST_PIXELS else "inception"


def compute(
    extractor: Extractor, batches: Iterator[np.ndarray], layout: Layout
) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
    """(features, logits) of each batch of uint8 images, computed over all devices; batches may be of any length."""
    params = replicate(layout, extractor.params)
    program = jax.jit(extractor.apply, out_shardings=layout.replicated, compiler_options=cpu_compiler_options())
    size = -(-BATCH // layout.mesh.size) * layout.mesh.size
    for images in batches:
        parts = []
        for first in range(0, len(images), size):
            rows = np.minimum(np.arange(first, first + size), len(images) - 1)  # filled up with copies, cut off below
            parts.append(program(params, *split_batch(layout, images[rows])))
        features, logits = (
            None if column[0] is None else np.concatenate(column) for column in zip(*parts, strict=True)
        )
        assert features is not None
        yield features[: len(images)], None if logits is None else logits[: len(images)]


@register_features("domain")
def _domain(dataset: ImageDataset) -> Extractor:
    if dataset.image_shape != domain.IMAGE_SHAPE:
        raise ValueError(f"domain features are for {domain.IMAGE_SHAPE} images, not {dataset.image_shape}")
    return Extractor(f"domain-{domain.VERSION} {dataset.name}", domain.load(dataset.name), domain.apply)


@register_features("pixels")
def _pixels(dataset: ImageDataset) -> Extractor:
    return Extractor("pixels-1", {}, lambda _, images: (to_unit(images).reshape(len(images), -1), None))


@register_features("inception")
def _inception(dataset: ImageDataset) -> Extractor:
    from fmd.evaluation import inception

    variables = inception.load_variables(inception.find_weights())
    return Extractor(f"inception-{inception.CHECKSUM}", variables, inception.inception_features)
