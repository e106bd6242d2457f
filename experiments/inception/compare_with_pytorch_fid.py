"""Compares `fmd.evaluation.features.inception` with the network of PyPI `pytorch-fid` on the same weights and images.

PyTorch is no dependency of fmd; install it beside fmd and run:

    python -m venv peers
    peers/bin/pip install -e . torch==2.13.0 torchvision==0.28.0 pytorch-fid==0.3.0
    peers/bin/python experiments/inception/compare_with_pytorch_fid.py [--weights=pt_inception-2015-12-05-6726825d.pth]

(A CPU wheel of PyTorch is enough; the default one for Linux brings CUDA.) Without --weights both sides get random
weights and random batch-norm statistics from `hashed_weights.py`: every layer, the pools and the resizing matter as
much as with the published ones. The state dict is saved as the published one is, in the form of PyTorch before 1.6, and
must come out of `read_state_dict` bit by bit as it went in.

A difference is the largest one divided by the largest value. The features of a random network differ little between
images, so each row also shows how much: "spread" is the largest difference between the features of two images in the
same measure, and "torchvision" what torchvision's own pools (padding counted, an average in the last block) would give.
The result is `compare_with_pytorch_fid.json` beside this file; with --weights `compare_with_published_weights.json`.
"reference" in it are some of pytorch-fid's own numbers for the first image of the first size, which a test compares.
"""

import argparse
import json
import pathlib
import platform
import tempfile
from importlib.metadata import version
from unittest import mock

import jax
import numpy as np
import torch

try:
    import torchvision
except RuntimeError:  # its wheel is for CUDA and PyTorch's is not: operators that this network never calls are missing
    for operator in ("nms", "qnms"):
        torch.library.define(f"torchvision::{operator}", "(Tensor dets, Tensor scores, float threshold) -> Tensor")
    import torchvision
import pytorch_fid.inception
from hashed_weights import images as hashed_images
from hashed_weights import parameter

from fmd.evaluation.features import inception, inception_weights
from fmd.evaluation.features.torch_file import read_state_dict

SHAPES = ((28, 28, 1), (32, 32, 3), (299, 299, 3), (512, 512, 3))
BATCH = 4
LIMIT = 1e-4


def hashed_state(network):
    """A state dict of the network with the parameters of `hashed_weights`."""
    return {
        name: value if name.endswith("num_batches_tracked") else torch.from_numpy(parameter(name, tuple(value.shape)))
        for name, value in network.state_dict().items()
    }


def networks(weights):
    """pytorch-fid's network and torchvision's, with the same weights, and these as a state dict."""
    plain = torchvision.models.inception_v3(num_classes=1008, aux_logits=False, weights=None, init_weights=False)
    state = torch.load(weights) if weights else hashed_state(plain)
    with mock.patch.object(pytorch_fid.inception, "load_state_dict_from_url", return_value=state):
        network = pytorch_fid.inception.InceptionV3([3]).eval()  # resizes and scales what it is given, as for FID
        full = pytorch_fid.inception.fid_inception_v3().eval()
    plain.load_state_dict(state)
    return network, full, plain.eval(), full.state_dict()


def saved_and_read(state, path):
    """`path` with the state dict; raises where what is read differs from what was saved."""
    torch.save(state, path, _use_new_zipfile_serialization=False)
    read = read_state_dict(path)
    assert list(read) == list(state), "other names"
    for name, value in state.items():
        np.testing.assert_array_equal(read[name], value.numpy(), err_msg=name, strict=True)
    return path


def theirs(network, full, plain, images):
    """Features, logits, preprocessed images and torchvision's features."""
    as_tensor = torch.from_numpy(images.transpose(0, 3, 1, 2)).float() / 255  # what torchvision's ToTensor gives
    as_tensor = as_tensor.expand(-1, 3, -1, -1)
    features = network(as_tensor)[0][:, :, 0, 0]
    resized = torch.nn.functional.interpolate(as_tensor, size=(299, 299), mode="bilinear", align_corners=False)
    resized = 2 * resized - 1
    kept = []
    with plain.avgpool.register_forward_hook(lambda *call: kept.append(call[-1][:, :, 0, 0])):
        plain(resized)
    return [x.numpy() for x in (features, full.fc(features), resized.permute(0, 2, 3, 1), kept[0])]


def difference(ours, theirs):
    ours, theirs = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    assert ours.shape == theirs.shape, (ours.shape, theirs.shape)
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max())


def compare(weights):
    network, full, plain, state = networks(weights)
    with tempfile.TemporaryDirectory() as folder:
        variables = inception_weights.load_variables(saved_and_read(state, pathlib.Path(folder) / "a.pth"))
    apply = jax.jit(inception.InceptionV3().apply)  # apart from the resizing: compiled once for all sizes
    rows = {}
    for shape in SHAPES:
        images = hashed_images(BATCH, shape)
        x = inception.preprocess(images)
        features, logits = apply(variables, x)
        their_features, their_logits, their_x, unpatched = theirs(network, full, plain, images)
        rows["x".join(map(str, shape))] = {
            "input": difference(x, their_x),
            "features": difference(features, their_features),
            "logits": difference(logits, their_logits),
            "spread": difference(their_features[1:], their_features[:-1]),
            "torchvision": difference(features, unpatched),
        }
        if shape == SHAPES[0]:
            reference = {"features": their_features[0, ::128].tolist(), "logits": their_logits[0, ::63].tolist()}
    return rows, reference


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--weights", help="the published file; default: random weights")
    arguments = parser.parse_args()
    with torch.no_grad():
        rows, reference = compare(arguments.weights)
    worst = {what: max(row[what] for row in rows.values()) for what in ("features", "logits")}
    result = {
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("jax", "flax", "numpy", "torch", "torchvision", "pytorch-fid")},
        },
        "device": jax.devices()[0].device_kind,
        "weights": pathlib.Path(arguments.weights).name if arguments.weights else "hashed_weights.py",
        "images_per_size": BATCH,
        "largest": worst,
        "relative_differences": rows,
        "reference": reference,
    }
    place = pathlib.Path(__file__).with_name(
        "compare_with_published_weights.json" if arguments.weights else "compare_with_pytorch_fid.json"
    )
    place.write_text(json.dumps(result, indent=1) + "\n")
    columns = list(next(iter(rows.values())))
    print(f"{'images':<10}", *(f"{column:>12}" for column in columns))
    for name, row in rows.items():
        print(f"{name:<10}", *(f"{row[column]:>12.2e}" for column in columns))
    assert max(worst.values()) < LIMIT, f"features or logits differ by more than {LIMIT}"


if __name__ == "__main__":
    main()
