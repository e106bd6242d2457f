"""A program without fmd.

The sampler as one file of StableHLO with its weights inside, run by another process in which only JAX is imported:
noise, labels and a guidance weight in, uint8 images out. From the same noise both make the same pixels.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

import jax
import numpy as np
from matplotlib.figure import Figure

import fmd
from experiments.gallery import style
from fmd.export import portable

ELSEWHERE = """
import sys
import numpy as np
import jax.export
program = jax.export.deserialize(bytearray(open("sampler.jaxexport", "rb").read()))
noise, labels = np.load("noise.npy"), np.load("labels.npy")
np.save("images.npy", program.call(noise, labels, np.float32(1)))
assert "fmd" not in sys.modules
"""


def draw(small: bool = False) -> Figure:
    sampler, labels = fmd.load("mnist"), np.arange(2 if small else 10, dtype=np.int32)
    settings = sampler.settings.replace(weight=1.0, solver="midpoint", steps=1 if small else 5)
    noise = np.asarray(jax.random.normal(jax.random.key(0), (len(labels), *sampler.image_shape)))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "sampler.jaxexport").write_bytes(
            portable.serialize(sampler.model, sampler.params, sampler.info, settings)
        )
        np.save(folder / "noise.npy", noise)
        np.save(folder / "labels.npy", labels)
        subprocess.run([sys.executable, "-c", ELSEWHERE], cwd=folder, check=True)
        elsewhere = np.load(folder / "images.npy")
    here = sampler(labels, noise=noise, settings=settings)
    same = f"JAX alone\n{np.mean(here == elsewhere):.1%} equal"
    return style.tiles(np.stack([here, elsewhere]), ["fmd", same])
