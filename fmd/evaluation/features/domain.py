"""Features of small greyscale sets from classifiers that come with fmd, the same ones for everybody.

An ImageNet network says little about 28x28 pictures of this kind, so these sets are judged with a classifier of their
own: 3x3 convolutions and matrix products, a mean over the image, and a hidden layer whose 128 non-negative activations
are the features. It was trained by `experiments/classifiers/train.py`, which names its layers; batch normalisation is
folded into the layers before, and the weights are rounded to float16. A version never changes: better weights get a new
number, and figures of different versions do not compare.
"""

import itertools
from collections.abc import Mapping
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float16, Int, UInt8

from fmd.data import ImageDataset
from fmd.evaluation.features import Extractor, register_features
from fmd.files import digest
from fmd.math.pixels import to_unit
from fmd.models.layers import fold

VERSION = 1
FILES = {  # data set: sha256 of its file, weights/NAME-VERSION.npz
    "mnist": "301af8172103fc6b1e63deb83e04fad09e741dbf02d450acd1988a424909e647",  # 99.63 % right on the test split
    "fashion_mnist": "0b40b8f38ec839a870994e48591c2e6f31ccb195fb7fee41abb046d317b24839",  # 93.61 %
}
TRIED, LEAST_RIGHT = 500, 0.8  # real images to try a classifier on, and the share that it must be right on
IMAGE_SHAPE = (28, 28, 1)

Arrays = Mapping[str, Float[Array, "..."] | Float16[np.ndarray, "..."]]


@register_features("domain")
def extractor(dataset: ImageDataset) -> Extractor:
    """The classifier of a data set. ValueError for images that it does not know, KeyError where there is none."""
    if reason := misfit(dataset):
        raise ValueError(reason)
    return Extractor(f"domain-{VERSION} {dataset.name}", load(dataset.name), apply)


def misfit(dataset: ImageDataset) -> str | None:
    """Why the classifier of this name is not one of these images, in a line; None where it is.

    Any folder can be called mnist: the classifier must be right on real images.
    """
    if dataset.image_shape != IMAGE_SHAPE:
        return f"domain features are for {IMAGE_SHAPE} images, not {dataset.image_shape}"
    asked = dataset.test.take(np.arange(min(TRIED, len(dataset.test))))
    right = float(np.mean(classify(load(dataset.name), asked.images) == asked.labels))
    if right < LEAST_RIGHT:
        return (
            f"the classifier of {dataset.name} is right on {right:.0%} of these test images: they are others, or their "
            f"classes are; use --features=pixels or inception"
        )
    return None


def load(name: str, checksums: Mapping[str, str] = FILES) -> dict[str, Float16[np.ndarray, "..."]]:
    """The arrays of the classifier of a data set.

    Raises:
        KeyError: for a data set without one.
        ValueError: when the installed file is not the published one.
    """
    if name not in checksums:
        raise KeyError(f"no classifier comes with fmd for {name!r}; there are ones for {', '.join(checksums)}")
    path = Path(__file__).parent / "weights" / f"{name}-{VERSION}.npz"
    if (found := digest(path, "sha256")) != checksums[name]:
        raise ValueError(f"{path} has sha256 {found[:16]}..., not {checksums[name][:16]}...; install fmd again")
    with np.load(path, allow_pickle=False) as file:
        return {key: file[key] for key in file.files}


def apply(
    arrays: Arrays, images: UInt8[Array, "B 28 28 1"]
) -> tuple[Float[Array, "B features"], Float[Array, "B classes"]]:
    """(features, logits) of uint8 images, in float32. Pure, for use inside jit.

    `arrays` say what the layers are. A kernel [3, 3, in, out] is a convolution and [in, out] a matrix product; where
    `in` is four times the channels that there are, 2x2 pixels are folded into channels first.
    """
    weights = {name: jnp.asarray(array, jnp.float32) for name, array in arrays.items()}
    x = to_unit(images)
    with jax.default_matmul_precision("float32"):  # TensorFloat-32 would move the features
        for i in itertools.takewhile(lambda i: f"layer_{i}_kernel" in weights, itertools.count()):
            kernel, bias = weights[f"layer_{i}_kernel"], weights[f"layer_{i}_bias"]
            if kernel.shape[-2] == 4 * x.shape[-1]:
                x = fold(x, 2)
            if kernel.ndim == 2:
                x = x @ kernel
            else:
                x = jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
            x = jax.nn.relu(x + bias[None, None, None, :])
        features = jax.nn.relu(x.mean(axis=(1, 2)) @ weights["hidden_kernel"] + weights["hidden_bias"][None, :])
        return features, features @ weights["logits_kernel"] + weights["logits_bias"][None, :]


def classify(arrays: Arrays, images: UInt8[np.ndarray, "N 28 28 1"], batch_size: int = 500) -> Int[np.ndarray, " N"]:
    """The most probable class of each image; images in host memory."""
    predict = jax.jit(lambda images: jnp.argmax(apply(arrays, images)[1], axis=1))
    parts = (images[first : first + batch_size] for first in range(0, len(images), batch_size))
    return np.concatenate([np.asarray(predict(part)) for part in parts])
