"""InceptionV3 as the Fréchet Inception distance uses it: images -> 2048 features and 1008 logits.

The network is that of arXiv 1512.00567 with the weights of TensorFlow's graph of 2015-12-05. The weights belong to a
few habits of that graph, without which the features are others:

- average pools in the blocks with a pool branch divide by the number of real pixels, not counting the padding;
- the last block, Mixed_7c, has a max pool in that branch;
- batch normalisation has eps = 1e-3. Here it is folded into kernel and bias of the convolution before it.

Modules carry the names that their parameters have in the file of weights, see `inception_weights`.
Convolutions ask for full float32 precision: by default GPUs and TPUs would round their inputs.
"""

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict
from jax.lax import Precision
from jaxtyping import Array, Float, PyTree, Shaped

from fmd.types import Params

SIZE = 299
EPSILON = 1e-3  # of the batch normalisation

Pixels = Shaped[Array, "..."] | Shaped[np.ndarray, "..."]  # uint8 [B, H, W, 1 or 3]; others are refused


def inception_features(variables: Params, images: Pixels) -> tuple[Float[Array, "B 2048"], Float[Array, "B 1008"]]:
    """Features and logits of images with one or three channels, a pure function to be compiled.

    Args:
        variables: what `load_variables` gave.
        images: uint8 [B, H, W, 1 or 3] of any size, see `preprocess`.

    Returns:
        (the last average pool, logits with their bias), float32. The softmax of the original Inception score leaves the
        bias out: logits - variables["params"]["fc"]["bias"].
    """
    found: PyTree = InceptionV3().apply(variables, preprocess(images))
    features, logits = found
    return features, logits


def preprocess(images: Pixels) -> Float[Array, "B 299 299 3"]:
    """The network's input of uint8 pixels u: u / 255 resized to 299 x 299, then 2 x - 1.

    One channel is repeated thrice. Resizing is bilinear between pixel centres, without the low-pass filter
    ("antialias") that many libraries, JAX's own among them, add when images become smaller. Along an axis of n pixels,
    output pixel i reads the input at

        s = max(0, (i + 1/2) n / 299 - 1/2),     x[f] (1 - s + f) + x[min(f + 1, n - 1)] (s - f),     f = floor(s).

    n / 299 and s are rounded to float32 once each, as a fused multiply-add does, and everything after is float32:
    nothing is rounded back to uint8. Images of 299 x 299 are only scaled. These are the rules of pytorch-fid; the
    original graph takes (u - 128) / 128 and other pixel centres.

    Raises ValueError for anything but uint8 [B, H, W, 1] or [B, H, W, 3].
    """
    if images.dtype != jnp.uint8 or images.ndim != 4 or images.shape[-1] not in (1, 3):
        raise ValueError(
            f"images must be uint8 [B, H, W, C] with C = 1 or 3, got {images.dtype} {list(images.shape)}; "
            f"convert or drop channels first"
        )
    x = jnp.asarray(images).astype(jnp.float32) / 255.0
    x = 2.0 * _resize(_resize(x, axis=2), axis=1) - 1.0
    return jnp.repeat(x, 3 // images.shape[-1], axis=-1)


def _resize(x: Float[Array, "B H W C"], axis: int) -> Float[Array, "B P Q C"]:
    size = x.shape[axis]
    scale = float(np.float32(size / SIZE))
    source = np.maximum(scale * (np.arange(SIZE) + 0.5) - 0.5, 0.0).astype(np.float32)
    first = source.astype(np.int32)
    second = np.minimum(first + 1, size - 1)
    weight = (source - first.astype(np.float32)).reshape([SIZE if i == axis else 1 for i in range(x.ndim)])
    resized: Array = jnp.take(x, first, axis) * (1 - weight) + jnp.take(x, second, axis) * weight
    return resized


class InceptionV3(nn.Module):
    """x float32 [B, 299, 299, 3] in [-1, 1] -> (features [B, 2048], logits [B, 1008]), float32."""

    @nn.compact
    def __call__(self, x: Float[Array, "B H W 3"]) -> tuple[Float[Array, "B 2048"], Float[Array, "B 1008"]]:
        x = _conv(x, "Conv2d_1a_3x3", 32, (3, 3), 2)
        x = _conv(x, "Conv2d_2a_3x3", 32, (3, 3), padding="VALID")
        x = _conv(x, "Conv2d_2b_3x3", 64, (3, 3))
        x = _halve(x)
        x = _conv(x, "Conv2d_3b_1x1", 80)
        x = _conv(x, "Conv2d_4a_3x3", 192, (3, 3), padding="VALID")
        x = _halve(x)  # 35 x 35
        for name, pool_width in (("Mixed_5b", 32), ("Mixed_5c", 64), ("Mixed_5d", 64)):
            x = BlockA(pool_width, name=name)(x)
        x = BlockB(name="Mixed_6a")(x)  # 17 x 17
        for name, width in (("Mixed_6b", 128), ("Mixed_6c", 160), ("Mixed_6d", 160), ("Mixed_6e", 192)):
            x = BlockC(width, name=name)(x)
        x = BlockD(name="Mixed_7a")(x)  # 8 x 8
        x = BlockE(_average, name="Mixed_7b")(x)
        x = BlockE(_maximum, name="Mixed_7c")(x)
        features = x.mean(axis=(1, 2))
        return features, nn.Dense(1008, precision=Precision.HIGHEST, name="fc")(features)


class BlockA(nn.Module):
    """Branches of 1x1, 5x5 and two 3x3 convolutions."""

    pool_width: int

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B H W D"]:
        five = _branch(x, "branch5x5", (48,), (64, (5, 5)))
        three = _branch(x, "branch3x3dbl", (64,), (96, (3, 3)), (96, (3, 3)))
        pool = _conv(_average(x), "branch_pool", self.pool_width)
        return _join(_conv(x, "branch1x1", 64), five, three, pool)


class BlockB(nn.Module):
    """Half the height and width."""

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B P Q D"]:
        double = _branch(x, "branch3x3dbl", (64,), (96, (3, 3)), (96, (3, 3), 2))
        return _join(_conv(x, "branch3x3", 384, (3, 3), 2), double, _halve(x))


class BlockC(nn.Module):
    """7x7 convolutions, once and twice, each factorised into a row and a column."""

    width: int

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B H W D"]:
        row, column, narrow = (self.width, (1, 7)), (self.width, (7, 1)), (self.width,)
        once = _branch(x, "branch7x7", narrow, row, (192, (7, 1)))
        twice = _branch(x, "branch7x7dbl", narrow, column, row, column, (192, (1, 7)))
        return _join(_conv(x, "branch1x1", 192), once, twice, _conv(_average(x), "branch_pool", 192))


class BlockD(nn.Module):
    """Half the height and width, with a factorised 7x7 convolution in one branch."""

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B P Q D"]:
        three = _branch(x, "branch3x3", (192,), (320, (3, 3), 2))
        seven = _branch(x, "branch7x7x3", (192,), (192, (1, 7)), (192, (7, 1)), (192, (3, 3), 2))
        return _join(three, seven, _halve(x))


class BlockE(nn.Module):
    """3x3 convolutions whose end is a row and a column side by side; the two blocks differ in `pool`."""

    pool: Callable[[Array], Array]

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B H W 2048"]:
        once = _conv(x, "branch3x3_1", 384)
        once = _join(_conv(once, "branch3x3_2a", 384, (1, 3)), _conv(once, "branch3x3_2b", 384, (3, 1)))
        twice = _branch(x, "branch3x3dbl", (448,), (384, (3, 3)))
        twice = _join(_conv(twice, "branch3x3dbl_3a", 384, (1, 3)), _conv(twice, "branch3x3dbl_3b", 384, (3, 1)))
        return _join(_conv(x, "branch1x1", 320), once, twice, _conv(self.pool(x), "branch_pool", 192))


def _conv(
    x: Array, name: str, width: int, kernel: tuple[int, int] = (1, 1), stride: int = 1, padding: str = "SAME"
) -> Array:
    """Convolution and ReLU in the module that is running; with a stride only where the kernel fits."""
    padding = "VALID" if stride > 1 else padding
    return nn.relu(nn.Conv(width, kernel, stride, padding, precision=Precision.HIGHEST, name=name)(x))


def _branch(x: Array, name: str, *layers: tuple[Any, ...]) -> Array:
    """Convolutions one after the other, NAME_1, NAME_2, ...: of each the width, and what else `_conv` takes."""
    for number, layer in enumerate(layers, 1):
        x = _conv(x, f"{name}_{number}", *layer)
    return x


_average = functools.partial(nn.avg_pool, window_shape=(3, 3), padding="SAME", count_include_pad=False)
_maximum = functools.partial(nn.max_pool, window_shape=(3, 3), padding="SAME")
_halve = functools.partial(nn.max_pool, window_shape=(3, 3), strides=(2, 2))


def _join(*branches: Array) -> Array:
    return jnp.concatenate(branches, axis=-1)


@functools.cache
def kernel_shapes() -> dict[tuple[str, ...], tuple[int, ...]]:
    """The path of each module with parameters -> the shape of its kernel."""
    image = jax.ShapeDtypeStruct((1, SIZE, SIZE, 3), jnp.float32)
    params = jax.eval_shape(InceptionV3().init, jax.random.key(0), image)["params"]
    return {path[:-1]: leaf.shape for path, leaf in flatten_dict(params).items() if path[-1] == "kernel"}
