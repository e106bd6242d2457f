"""The classifiers that come with fmd: what is installed is what was published, and computes what it says."""

import jax
import numpy as np
import pytest

from fmd.evaluation.features import domain

IMAGES = np.random.default_rng(0).integers(0, 256, (2, 28, 28, 1)).astype(np.uint8)
LAYERS = {  # kind, and whether 2x2 pixels are folded into the channels before
    "mnist": [("conv", True), ("conv", False), ("linear", True), ("conv", False), ("conv", False)],
    "fashion_mnist": [
        ("conv", False),
        ("linear", True),
        ("conv", False),
        ("conv", False),
        ("linear", True),
        ("conv", False),
        ("conv", False),
    ],
}


def fold(x):
    """2 x 2 pixels into the channels, row by row."""
    return np.concatenate([x[:, i::2, j::2] for i in (0, 1) for j in (0, 1)], axis=-1)


def by_hand(name, arrays, images):
    """The network in NumPy and float64."""
    w = {name: array.astype(np.float64) for name, array in arrays.items()}
    x = images / 127.5 - 1
    for i, (kind, folded) in enumerate(LAYERS[name]):
        if folded:
            x = fold(x)
        if kind == "linear":
            x = x @ w[f"layer_{i}_kernel"]
        else:
            windows = np.lib.stride_tricks.sliding_window_view(
                np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0))), (3, 3), (1, 2)
            )
            x = np.einsum("bhwcij,ijcd->bhwd", windows, w[f"layer_{i}_kernel"], optimize=True)
        x = np.maximum(x + w[f"layer_{i}_bias"], 0)
    hidden = np.maximum(x.mean(axis=(1, 2)) @ w["hidden_kernel"] + w["hidden_bias"], 0)
    return hidden, hidden @ w["logits_kernel"] + w["logits_bias"]


@pytest.mark.parametrize("name", domain.FILES)
def test_the_network_is_the_one_described(name):
    arrays = domain.load(name)
    assert {array.dtype for array in arrays.values()} == {np.dtype(np.float16)}
    for found, expected in zip(jax.jit(domain.apply)(arrays, IMAGES), by_hand(name, arrays, IMAGES), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_another_file_is_refused():
    with pytest.raises(ValueError, match=r"mnist-1.npz has sha256 .*install fmd again"):
        domain.load("mnist", {"mnist": "0" * 64})


def test_a_set_without_a_classifier():
    with pytest.raises(KeyError, match="for 'cifar10'; there are ones for mnist, fashion_mnist"):
        domain.load("cifar10")
