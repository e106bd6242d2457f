"""Features that samples are compared by: functions from uint8 images to feature vectors and, if they classify, logits.

    domain      the classifier that comes with fmd for this data set: mnist     .domain
    inception   the InceptionV3 of the original FID, for larger images; its weights are a download   .inception_weights
    pixels      the pixels themselves, for images of a few hundred numbers
    blocks      means of 8x8 parts of an image: what lies where, and no detail; for those without Inception's weights
    auto        domain where there is one, pixels up to 256 numbers an image, else inception

Your own is a function from the data set to an `Extractor`, registered by name:

    @register_features("mine")
    def mine(dataset):
        return Extractor("mine-1", params, apply)       # apply(params, images uint8 [B, H, W, C]) -> (features, logits)
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, UInt8

from fmd.data import ImageDataset
from fmd.devices import Layout, cpu_compiler_options, map_batches, replicate
from fmd.math.pixels import to_unit
from fmd.registry import Registry
from fmd.types import Params, Pixels

BATCH = 500
MOST_PIXELS = 256  # numbers per image up to which `auto` compares the pixels themselves

Seen = tuple[Float[Array, "B D"], Float[Array, "B K"] | None]
"""Features and logits of a batch, inside a program."""

Found = tuple[Float32[np.ndarray, "B D"], Float32[np.ndarray, "B K"] | None]
"""Features and logits of a batch, on the host."""


class Extractor(NamedTuple):
    """A pure function of images, with a name that changes whenever its numbers do.

    name     of the features and their version; part of the key of cached statistics, and recorded with every figure
    params   arrays for `apply`
    apply    (params, uint8 [B, H, W, C]) -> (features float32 [B, D], logits [B, K] or None); called inside jit
    """

    name: str
    params: Params
    apply: Callable[[Params, Pixels], Seen]


FEATURES: Registry[Extractor] = Registry(
    "features", built_in={"domain": f"{__name__}.domain", "inception": f"{__name__}.inception_weights"}
)
register_features = FEATURES.register


def get(name: str, dataset: ImageDataset) -> Extractor:
    """The features called `name`, for the images of `dataset`.

    Raises:
        UnknownName (a KeyError): for an unknown name.
        ValueError, FileNotFoundError: where these features do not fit the images, or their weights are not at hand.
    """
    return FEATURES[name](dataset)


@register_features("auto")
def automatic(dataset: ImageDataset) -> Extractor:
    """The features that suit a data set."""
    return get(name_for(dataset), dataset)


def name_for(dataset: ImageDataset) -> str:
    """The name of the features that suit a data set."""
    from fmd.evaluation.features import domain

    if dataset.name in domain.FILES and domain.misfit(dataset) is None:
        return "domain"
    return "pixels" if np.prod(dataset.image_shape) <= MOST_PIXELS else "inception"


@register_features("pixels")
def pixels(dataset: ImageDataset) -> Extractor:
    """The pixels in [-1, 1]."""
    return Extractor("pixels-1", {}, lambda _, images: (to_unit(images).reshape(len(images), -1), None))


@register_features("blocks")
def blocks(dataset: ImageDataset) -> Extractor:
    """The means of at most 8x8 equal parts of the pixels in [-1, 1]."""
    rows, columns = (_means(size) for size in dataset.image_shape[:2])

    def apply(_: Params, images: Pixels) -> Seen:
        means = jnp.einsum("rh,bhwc,kw->brkc", rows, to_unit(images), columns)
        return means.reshape(len(images), -1), None

    return Extractor("blocks-1", {}, apply)


def _means(size: int, most: int = 8) -> Float32[np.ndarray, "parts size"]:
    """The matrix that averages `size` numbers over equal parts; a number on a border counts in both by its shares."""
    parts = min(size, most)
    borders, left = np.linspace(0, size, parts + 1)[:, None], np.arange(size)
    shares = np.minimum(borders[1:], left + 1) - np.maximum(borders[:-1], left)
    return np.asarray(np.maximum(shares, 0) * parts / size, np.float32)


def compute(extractor: Extractor, batches: Iterator[UInt8[np.ndarray, "B H W C"]], layout: Layout) -> Iterator[Found]:
    """Features and logits of each batch of images, computed over all devices; batches may be of any length."""
    program = jax.jit(extractor.apply, out_shardings=layout.replicated, compiler_options=cpu_compiler_options())
    see = partial(program, replicate(layout, extractor.params))
    for images in batches:
        found: Found = map_batches(layout, see, BATCH, images)
        yield found
