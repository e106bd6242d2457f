"""The published weights of the FID network: found or fetched, and put into the form of `inception.InceptionV3`.

They are in a file of PyTorch, which is read without PyTorch. Batch normalisation is folded into the convolutions.
"""

from collections.abc import Callable
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from absl import logging
from flax.traverse_util import unflatten_dict
from jaxtyping import Float64

from fmd.data import ImageDataset
from fmd.evaluation.features import Extractor, register_features
from fmd.evaluation.features.inception import EPSILON, inception_features, kernel_shapes
from fmd.evaluation.features.torch_file import read_state_dict
from fmd.files import atomic_path, data_cache, digest, download
from fmd.types import Params

CHECKSUM = "6726825d"  # the file's sha256 begins so
FILE_NAME = f"pt_inception-2015-12-05-{CHECKSUM}.pth"
URL = f"https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/{FILE_NAME}"
MOST_BYTES = 2**27  # the file has 96 MB


@register_features("inception")
def extractor(dataset: ImageDataset) -> Extractor:
    """The network with its published weights; they are fetched where they are not there yet."""
    return Extractor(f"inception-{CHECKSUM}", load_variables(find_weights()), inception_features)


def load_variables(path: str | Path) -> Params:
    """The published file as variables of `InceptionV3`, on JAX's default device.

    Raises OSError for a file that cannot be opened, ValueError for one that does not hold exactly this network.
    """
    return variables_of(read_state_dict(path), path)


def variables_of(state: dict[str, np.ndarray], path: str | Path) -> Params:
    """The arrays of the published file as variables of `InceptionV3`; `path` is named in messages."""
    state = {name: array for name, array in state.items() if not name.endswith(".num_batches_tracked")}

    def take(name: str, *shape: int) -> Float64[np.ndarray, "..."]:
        if name not in state:
            raise ValueError(f"{path} has no parameter {name}; give the file {FILE_NAME}")
        array = state.pop(name)
        if array.shape != shape or array.dtype != np.float32:
            raise ValueError(
                f"{path}: {name} is {array.dtype} {list(array.shape)}, not float32 {list(shape)}; "
                f"give the file {FILE_NAME}"
            )
        return array.astype(np.float64)

    params = {}
    for module, shape in kernel_shapes().items():
        kernel, bias = (_dense if len(shape) == 2 else _convolution)(take, ".".join(module), shape)
        params[*module, "kernel"] = jnp.asarray(kernel, jnp.float32)
        params[*module, "bias"] = jnp.asarray(bias, jnp.float32)
    if state:
        raise ValueError(f"{path}: {next(iter(state))} is no parameter of this network; give the file {FILE_NAME}")
    return {"params": unflatten_dict(params)}


Take = Callable[..., np.ndarray]  # (parameter's name, its shape) -> float64


def _dense(take: Take, name: str, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    inside, outside = shape
    return take(f"{name}.weight", outside, inside).T, take(f"{name}.bias", outside)


def _convolution(take: Take, name: str, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """gamma (w * x - mean) / sqrt(variance + eps) + beta as one kernel and bias."""
    height, width, inside, outside = shape
    kernel = take(f"{name}.conv.weight", outside, inside, height, width).transpose(2, 3, 1, 0)
    gamma, beta = take(f"{name}.bn.weight", outside), take(f"{name}.bn.bias", outside)
    mean, variance = take(f"{name}.bn.running_mean", outside), take(f"{name}.bn.running_var", outside)
    factor = gamma / np.sqrt(variance + EPSILON)
    return kernel * factor, beta - mean * factor


def find_weights(checksum: str = CHECKSUM) -> Path:
    """The published file in the user's data cache; fetched (96 MB) where it is not there yet.

    Args:
        checksum: the beginning of its sha256.

    Raises:
        ValueError: for a file there with another checksum.
        RuntimeError: where it cannot be fetched or written.
    """
    path = data_cache() / "inception" / FILE_NAME
    if path.is_file():
        found = digest(path, "sha256")
        if not found.startswith(checksum):
            raise ValueError(
                f"{path} has a sha256 that begins with {found[:8]}, not {checksum}: it is damaged or another file; "
                f"remove it to have it fetched again"
            )
        return path
    logging.info("fetching the Inception weights from %s", URL)
    try:
        with atomic_path(path) as unchecked:
            download(URL, unchecked, limit=MOST_BYTES)
            if not (found := digest(unchecked, "sha256")).startswith(checksum):
                raise ValueError(f"what came has a sha256 that begins with {found[:8]}")
    except (OSError, ValueError) as error:
        raise RuntimeError(
            f"the Inception weights could not be fetched ({error}); put the file into {path.parent}: "
            f"it is published at {URL}, its sha256 begins with {checksum}; or compare without them, --features=blocks"
        ) from error
    return path
