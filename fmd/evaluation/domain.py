"""Features of small greyscale sets from classifiers that come with fmd, the same ones for everybody.

An ImageNet network says little about 28x28 pictures of this kind, so these sets are judged with a classifier of their
own: 3x3 convolutions and matrix products, a mean over the image, and a hidden layer whose 128 non-negative activations
are the features. It was trained by `experiments/classifiers/train.py`, which names its layers; batch normalisation is
folded into the layers before, and the weights are rounded to float16. A version never changes: better weights get a new
number, and figures of different versions do not compare.
"""

import hashlib
import itertools
from collections.abc import Mapping
from importlib import resources
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8

from fmd.models.unet_blocks import fold
from fmd.utils.pixels import to_unit

VERSION = 1
FILES = {  # data set: sha256 of its file, weights/NAME-VERSION.npz
    "mnist": "301af8172103fc6b1e63deb83e04fad09e741dbf02d450acd1988a424909e647",  # 99.63 % right on the test split
    "fashion_mnist": "0b40b8f38ec839a870994e48591c2e6f31ccb195fb7fee41abb046d317b24839",  # 93.61 %
}
HIDDEN = 128
IMAGE_SHAPE = (28, 28, 1)

Arrays = Mapping[str, Any]


def load(name: str) -> dict[str, np.ndarray]:
    """The classifier's arrays, float16, for a data set with one of its own.

    Raises:
        KeyError: for a data set without one.
        ValueError: when the installed file is not the published one.
    """
    if name not in FILES:
        raise KeyError(f"no classifier comes with fmd for {name!r}; there are ones for {', '.join(FILES)}")
    with resources.as_file(resources.files(__package__) / "weights" / f"{name}-{VERSION}.npz") as path:
        if (found := checksum(path)) != FILES[name]:
            raise ValueError(f"{path} has sha256 {found[:16]}..., not {FILES[name][:16]}...; install fmd again")
        with np.load(path, allow_pickle=False) as file:
            return {key: file[key] for key in file.files}


def checksum(path: Any) -> str:
    """The sha256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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


def classify(arrays: Arrays, images: np.ndarray, batch_size: int = 500) -> np.ndarray:
    """The most probable class of each image, int32 [N]; uint8 images [N, 28, 28, 1] in host memory."""
    predict = jax.jit(lambda images: jnp.argmax(apply(arrays, images)[1], axis=1))
    parts = (images[first : first + batch_size] for first in range(0, len(images), batch_size))
    return np.concatenate([np.asarray(predict(part)) for part in parts])
