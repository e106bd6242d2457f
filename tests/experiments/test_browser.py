"""The page that draws in a browser: its JavaScript, run by Node, computes what fmd computes."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fmd import methods
from fmd.config import Settings
from fmd.math.editing import slerp
from fmd.math.pixels import to_uint8
from fmd.randomness import example_normal

PAGE = Path(__file__).parents[2] / "experiments" / "browser" / "page"
SHAPE, LABELS, UNTOLD = (5, 4, 1), np.int32([0, 2, 3]), 4
WAYS = {
    "jumps": {"solver": "jump", "steps": 3},
    "midpoint": {"solver": "midpoint", "steps": 3, "weight": 1.7},
    "heun": {"solver": "heun", "steps": 2, "weight": 0.0},
}
SCRIPT = """
import { flow, jump, normal, pixels, slerp } from "./sampling.mjs";
import { readFileSync } from "node:fs";
const { ways, labels, untold, size } = JSON.parse(readFileSync(0));
const network = async (x, t, y, r) =>
  x.map((value, k) => Math.sin(2 * value) * (1 + t) + 0.5 * y[Math.floor(k / size)] - r);
const noise = Float32Array.from(labels.flatMap((_, i) => [...normal(i + 1e6, size)]));
const found = { noise, wide: normal(4294967295, 4000), between: slerp(normal(1, size), normal(2, size), 0.3) };
for (const [name, how] of Object.entries(ways)) {
  const way = how.solver === "jump" ? jump : flow;
  const states = await way(network, noise, Int32Array.from(labels), { ...how, clip: true, untold });
  found[name] = states.at(-1);
}
found.pixels = pixels(Float32Array.of(-2, -1, -0.5, 0, 0.25, 1, 3));
console.log(JSON.stringify(Object.fromEntries(Object.entries(found).map(([name, x]) => [name, [...x]]))));
"""


class Network:
    """The network of the script."""

    def __call__(self, x, t, y, r=None):
        t, y, r = (jnp.reshape(value, (-1, 1, 1, 1)) for value in (t, y, t if r is None else r))
        return jnp.sin(2 * x) * (1 + t) + 0.5 * y - r

    def drop(self, y, mask=None, parts=None):
        return jnp.full_like(y, UNTOLD) if mask is None else jnp.where(mask, UNTOLD, y)


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    if shutil.which("node") is None:
        pytest.skip("needs Node.js")
    folder = tmp_path_factory.mktemp("page")
    shutil.copy(PAGE / "sampling.js", folder / "sampling.mjs")
    (folder / "script.mjs").write_text(SCRIPT)
    given = {"ways": WAYS, "labels": LABELS.tolist(), "untold": UNTOLD, "size": int(np.prod(SHAPE))}
    run = subprocess.run(
        ["node", folder / "script.mjs"], input=json.dumps(given), capture_output=True, text=True, check=True
    )
    return {name: np.float32(values) for name, values in json.loads(run.stdout).items()}


def drawn(seed, shape=SHAPE):
    return example_normal(jax.random.key(seed), jnp.arange(1), shape)


def test_noise_is_that_of_the_seed_in_jax(found):
    noise = jnp.concatenate([drawn(1_000_000 + i) for i in range(len(LABELS))])
    np.testing.assert_allclose(found["noise"], noise.ravel(), atol=1e-6)
    np.testing.assert_allclose(found["wide"], drawn(4294967295, (4000,))[0], rtol=2e-6, atol=1e-6)
    np.testing.assert_allclose(found["between"], np.ravel(slerp(drawn(1), drawn(2), 0.3)), atol=1e-6)


@pytest.mark.parametrize("way", WAYS)
def test_each_way_of_sampling_is_that_of_the_method(found, way):
    method = methods.get("distribution_matching", clip_data=True)
    settings = Settings().replace(**WAYS[way])
    noise = found["noise"].reshape(-1, *SHAPE)
    wanted = jax.jit(lambda x0, y: method.sample(Network(), x0, y, settings).x)(noise, LABELS)
    np.testing.assert_allclose(found[way], np.ravel(wanted), atol=2e-5)


def test_pixels_are_rounded_alike(found):
    np.testing.assert_array_equal(found["pixels"], to_uint8(jnp.array([-2, -1, -0.5, 0, 0.25, 1, 3])))


def test_the_script_finds_its_elements_and_files():
    page, script = (PAGE / "index.html").read_text(), (PAGE / "page.js").read_text()
    asked = set(re.findall(r'get\("(\w+)"\)', script))
    assert asked
    assert asked <= set(re.findall(r'id="(\w+)"', page))
    build = (PAGE.parent / "build.py").read_text()
    for name in re.findall(r"ort/([\w.-]+)", page + script):
        assert f'"{name}"' in build, name
