"""The FID network: blocks against NumPy, all of it against pytorch-fid's numbers, resizing, the file and its ways here.

Those numbers, and the weights that they belong to, are in experiments/inception.
"""

import functools
import hashlib
import io
import json
import runpy
import urllib.error
import urllib.request
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fmd.evaluation.features import inception, inception_weights
from fmd.evaluation.features.inception import BlockA, BlockE, inception_features, kernel_shapes, preprocess

EXPERIMENT = Path(__file__).parents[2] / "experiments" / "inception"
HASHED = runpy.run_path(str(EXPERIMENT / "hashed_weights.py"))
jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})  # compiled to run once


@pytest.fixture(scope="module")
def shapes():
    """The tree of the variables' shapes."""
    image = jax.ShapeDtypeStruct((1, 299, 299, 3), jnp.float32)
    return jax.eval_shape(inception.InceptionV3().init, jax.random.key(0), image)


@pytest.mark.parametrize("size", [(2, 28, 28, 1), (3, 40, 600, 3)])
def test_features_and_logits(shapes, size):
    out = jax.eval_shape(jax.jit(inception_features), shapes, jax.ShapeDtypeStruct(size, jnp.uint8))
    assert [(o.shape, o.dtype) for o in out] == [((size[0], 2048), jnp.float32), ((size[0], 1008), jnp.float32)]


def test_the_number_of_parameters(shapes):
    """torchvision's inception_v3 without its auxiliary head has 23,834,568 parameters, of them 1000 x 2049 in `fc`
    and a gamma and a beta for each of 17,216 channels, where folding leaves a bias."""
    count = sum(leaf.size for leaf in jax.tree.leaves(shapes))
    assert count == 23_834_568 + 8 * 2049 - 17_216
    assert len(kernel_shapes()) == 94 + 1


def convolve(x, leaf):
    """Convolution over x with zeros around and ReLU, in float64."""
    height, width = leaf["kernel"].shape[:2]
    padded = np.pad(x, [(0, 0), (height // 2,) * 2, (width // 2,) * 2, (0, 0)])
    windows = np.lib.stride_tricks.sliding_window_view(padded, (height, width), axis=(1, 2))
    return np.maximum(np.einsum("bpqchw,hwcd->bpqd", windows, leaf["kernel"], optimize=True) + leaf["bias"], 0)


def pool(x, function):
    """`function` of the real pixels of each 3 x 3 window."""
    out = np.empty_like(x)
    for i in range(x.shape[1]):
        for j in range(x.shape[2]):
            out[:, i, j] = function(x[:, max(i - 1, 0) : i + 2, max(j - 1, 0) : j + 2], axis=(1, 2))
    return out


def run(block):
    """An input, random parameters and what the block makes of them."""
    rng = np.random.default_rng(0)
    x = rng.normal(-1, 1, (2, 4, 5, 3))  # mostly negative: zeros around would show in a maximum
    abstract = jax.eval_shape(block.init, jax.random.key(0), jnp.float32(x))["params"]
    params = jax.tree.map(lambda leaf: rng.normal(0, max(leaf.size / leaf.shape[-1], 9) ** -0.5, leaf.shape), abstract)
    out = jit(block.apply)({"params": jax.tree.map(jnp.float32, params)}, jnp.float32(x))
    return x, params, out


def test_block_a_is_its_four_branches():
    x, p, out = run(BlockA(pool_width=7))
    five = convolve(convolve(x, p["branch5x5_1"]), p["branch5x5_2"])
    three = convolve(convolve(convolve(x, p["branch3x3dbl_1"]), p["branch3x3dbl_2"]), p["branch3x3dbl_3"])
    averaged = convolve(pool(x, np.mean), p["branch_pool"])
    expected = np.concatenate([convolve(x, p["branch1x1"]), five, three, averaged], axis=-1)
    assert out.shape == (2, 4, 5, 64 + 64 + 96 + 7)
    np.testing.assert_allclose(out, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("own", "function"), [(inception._average, np.mean), (inception._maximum, np.max)])
def test_block_e_and_its_two_pools(own, function):
    x, p, out = run(BlockE(own))
    once = convolve(x, p["branch3x3_1"])
    twice = convolve(convolve(x, p["branch3x3dbl_1"]), p["branch3x3dbl_2"])
    expected = [
        convolve(x, p["branch1x1"]),
        convolve(once, p["branch3x3_2a"]),
        convolve(once, p["branch3x3_2b"]),
        convolve(twice, p["branch3x3dbl_3a"]),
        convolve(twice, p["branch3x3dbl_3b"]),
        convolve(pool(x, function), p["branch_pool"]),
    ]
    np.testing.assert_allclose(out, np.concatenate(expected, axis=-1), rtol=1e-4, atol=1e-4)


def pixels(*shape):
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def resized(images, antialias):
    shape = (images.shape[0], 299, 299, images.shape[-1])
    return jax.image.resize(jnp.float32(images) / 255, shape, "bilinear", antialias=antialias)


@pytest.mark.parametrize("size", [(28, 28), (32, 300), (299, 299), (512, 31), (1, 2)])
def test_resizing_is_bilinear_between_pixel_centres(size):
    images = pixels(1, *size, 3)
    out = preprocess(jnp.asarray(images))
    assert (out.shape, out.dtype) == ((1, 299, 299, 3), jnp.float32)

    def weights(n):  # in float64
        source = (np.arange(299) + 0.5) * n / 299 - 0.5
        return np.maximum(0, 1 - np.abs(np.clip(source, 0, n - 1)[:, None] - np.arange(n)))

    columns = np.einsum("bhwc,jw->bhjc", images / 255, weights(size[1]), optimize=True)
    expected = 2 * np.einsum("ih,bhjc->bijc", weights(size[0]), columns, optimize=True) - 1
    np.testing.assert_allclose(out, expected, atol=2e-4)  # positions near 512 have an ulp of 3e-5
    np.testing.assert_allclose(out, 2 * resized(images, antialias=False) - 1, atol=2e-4)


def test_nothing_is_smoothed_when_images_become_smaller():
    small, large = pixels(1, 28, 28, 1), pixels(1, 512, 512, 1)
    np.testing.assert_allclose(preprocess(small)[..., :1], 2 * resized(small, antialias=True) - 1, atol=1e-5)
    assert np.abs(preprocess(large)[..., :1] - (2 * resized(large, antialias=True) - 1)).max() > 0.1


def test_an_image_of_the_right_size_is_only_scaled():
    images = pixels(1, 299, 299, 3)
    np.testing.assert_allclose(preprocess(jnp.asarray(images)), images / 127.5 - 1, atol=2e-7)


def test_one_channel_is_repeated():
    images = pixels(1, 8, 9, 1)
    np.testing.assert_array_equal(preprocess(images), preprocess(np.repeat(images, 3, axis=-1)))


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [((1, 8, 8, 2), np.uint8), ((1, 8, 8, 4), np.uint8), ((8, 8, 3), np.uint8), ((1, 8, 8, 3), np.int32)],
)
def test_other_images_are_refused(shape, dtype):
    with pytest.raises(ValueError, match=r"images must be uint8 \[B, H, W, C\] with C = 1 or 3, got u?int\d+ \["):
        preprocess(np.zeros(shape, dtype))


@pytest.fixture(scope="module")
def published():
    """Names and shapes of the published file, with numbers of our own."""
    shapes = {}
    for module, (*window, inside, outside) in kernel_shapes().items():
        name = ".".join(module)
        if not window:
            shapes |= {f"{name}.weight": (outside, inside), f"{name}.bias": (outside,)}
            continue
        shapes[f"{name}.conv.weight"] = (outside, inside, *window)
        shapes |= {f"{name}.bn.{part}": (outside,) for part in ("weight", "bias", "running_mean", "running_var")}
    return {name: HASHED["parameter"](name, shape) for name, shape in shapes.items()}


def load(state):
    return inception_weights.variables_of(state, "a.pth")


def test_all_of_it_gives_the_numbers_of_pytorch_fid(shapes, published):
    variables = load({**published, "Mixed_5b.branch1x1.bn.num_batches_tracked": np.int64(0)})  # older files have none
    assert jax.tree.map(lambda a: (a.shape, a.dtype), variables) == jax.tree.map(lambda a: (a.shape, a.dtype), shapes)
    features, logits = jit(inception_features)(variables, jnp.asarray(HASHED["images"](1, (28, 28, 1))))
    reference = json.loads((EXPERIMENT / "compare_with_pytorch_fid.json").read_text())["reference"]
    for ours, theirs in ((features[0, ::128], reference["features"]), (logits[0, ::63], reference["logits"])):
        assert len(theirs) == 16
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5 * np.abs(theirs).max())


def test_a_file_of_another_network_is_refused(published):
    name = "Mixed_7c.branch3x3_2b.bn.running_var"
    with pytest.raises(ValueError, match=rf"a\.pth has no parameter {name}; give the file pt_inception-2015"):
        load({key: array for key, array in published.items() if key != name})
    with pytest.raises(ValueError, match=r"fc\.weight is float32 \[1000, 2048\], not float32 \[1008, 2048\]; give"):
        load({**published, "fc.weight": np.zeros((1000, 2048), np.float32)})
    with pytest.raises(ValueError, match=r"fc\.bias is int64 \[1008\], not float32"):
        load({**published, "fc.bias": np.zeros(1008, np.int64)})
    with pytest.raises(ValueError, match=r"a\.pth: AuxLogits\.fc\.bias is no parameter of this network; give"):
        load({**published, "AuxLogits.fc.bias": np.zeros(8, np.float32)})


CONTENT = b"the published file" * 100_000
CHECKSUM = hashlib.sha256(CONTENT).hexdigest()[:8]


class Response(io.BytesIO):
    headers = {"Content-Length": str(len(CONTENT))}  # noqa: RUF012


@pytest.fixture
def cache(monkeypatch, tmp_path):
    """The path of the file in an empty cache; the network serves CONTENT."""
    monkeypatch.setenv("FMD_DATA_DIR", str(tmp_path))
    monkeypatch.setattr(urllib.request, "urlopen", lambda url, timeout: Response(CONTENT))
    return tmp_path / "inception" / inception_weights.FILE_NAME


def no_network(url, timeout):
    raise urllib.error.URLError("Name or service not known")


def test_the_weights_are_fetched_once(cache, monkeypatch):
    assert inception_weights.find_weights(CHECKSUM) == cache
    assert cache.read_bytes() == CONTENT
    assert list(cache.parent.iterdir()) == [cache]
    monkeypatch.setattr(urllib.request, "urlopen", no_network)
    assert inception_weights.find_weights(CHECKSUM) == cache


def test_a_damaged_file_in_the_cache_is_refused(cache):
    cache.parent.mkdir()
    cache.write_bytes(b"other")
    begin = hashlib.sha256(b"other").hexdigest()[:8]
    with pytest.raises(ValueError, match=rf"pth has a sha256 that begins with {begin}, not {CHECKSUM}.*remove"):
        inception_weights.find_weights(CHECKSUM)
    assert cache.read_bytes() == b"other"


OTHERS = [no_network, lambda url, timeout: Response(CONTENT[:-1]), lambda url, timeout: Response(b"x" * len(CONTENT))]


@pytest.mark.parametrize("serves", OTHERS, ids=["no network", "cut short", "another file"])
def test_where_the_file_cannot_be_fetched_one_line_says_where_to_put_it(cache, monkeypatch, serves):
    monkeypatch.setattr(urllib.request, "urlopen", serves)
    with pytest.raises(RuntimeError, match="could not be fetched") as caught:
        inception_weights.find_weights(CHECKSUM)
    for part in (str(cache.parent), "https://github.com/mseitzer/pytorch-fid", inception_weights.FILE_NAME, CHECKSUM):
        assert part in str(caught.value)
    assert "\n" not in str(caught.value)
    assert list(cache.parent.iterdir()) == []


def test_the_name_of_the_file_carries_its_checksum():
    assert inception_weights.FILE_NAME == "pt_inception-2015-12-05-6726825d.pth"
    assert inception_weights.URL.endswith("/" + inception_weights.FILE_NAME)
