"""Makes a folder of static files that draws images in a browser, from any model of fmd that is told labels.

    python experiments/browser/build.py --checkpoint=mnist --out=site_browser
    python -m http.server --directory site_browser

index.html, page.js, sampling.js, style.css   as they lie in page/
model.onnx     the network u(x, t, y, r), its large weights as float16; at most 3 MB with all but ort/
model.json     its shape, its classes, and what can be chosen
first.png      each class from the noise of the first seed, drawn by JAX: what is shown until the network is loaded
ort/           onnxruntime-web, which npm fetches

A network without a second time has no jumps, and one that was trained with guidance weights takes them as an input w.
The converted network is compared with JAX's before it is written. requirements.txt says what this needs beside fmd.
"""

import argparse
import json
import logging
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

import fmd
from fmd.config import Settings
from fmd.methods.jumps import JUMP
from fmd.models.network import in_float32
from fmd.pictures.grids import save_png
from fmd.randomness import example_normal
from fmd.sampling.sampler import Sampler

HERE = Path(__file__).parent
RUNTIME, RUNTIME_FILES = "onnxruntime-web@1.30.0", ("ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm")
OPSET = 21
LARGE = 1000  # numbers from which an array is stored as float16
TOLERANCE = 1e-4  # between JAX and ONNX, relative to the largest number
LIMIT = 3_000_000  # bytes of our own
SEED = 43  # that the page opens with
SOLVERS = ("midpoint", "heun")
FLOW = {"solver": "midpoint", "steps": 5}  # where the model's settings name another solver, jumps among them

Arrays = dict[str, np.ndarray]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", required=True, help="a run, an export, or the name of a model that ships")
    parser.add_argument("--out", type=Path, default=Path("site_browser"), help="folder to make anew")
    flags = parser.parse_args()
    if flags.out.exists() and not (flags.out / "model.onnx").exists():
        sys.exit(f"build.py: {flags.out} exists and is no such page; give another --out")
    sampler = fmd.load(flags.checkpoint)
    refuse(sampler)
    onnx = convert(sampler)
    compare(onnx, sampler)
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "page"
        shutil.copytree(HERE / "page", page)
        (page / "model.onnx").write_bytes(onnx)
        (page / "model.json").write_text(json.dumps(choices(sampler)))
        save_png(page / "first.png", np.concatenate(list(first_images(sampler)), axis=1))
        own = sum(path.stat().st_size for path in page.iterdir())
        if own > LIMIT:
            sys.exit(f"build.py: {own:,} bytes, more than {LIMIT:,}; take a smaller network")
        fetch_runtime(page / "ort")
        shutil.rmtree(flags.out, ignore_errors=True)
        shutil.copytree(page, flags.out)
    print(f"{flags.out}: {own:,} bytes of our own; python -m http.server --directory {flags.out}")


def refuse(sampler: Sampler) -> None:
    """Leaves with one line for a model that the page cannot draw with."""
    info = sampler.info
    told = info.conditions is None and info.num_classes > 0
    straight = info.config.path.schedule == {"name": "linear"} and info.config.path.prediction == "velocity"
    if not told or not straight:
        sys.exit("build.py: the page needs labels alone, the schedule 'linear' and the prediction 'velocity'")


def choices(sampler: Sampler) -> dict[str, Any]:
    """The facts of the model that page.js needs."""
    info, settings, method = sampler.info, sampler.settings, sampler.method
    flow = {"solver": settings.solver, "steps": settings.steps} if settings.solver in SOLVERS else FLOW
    rule = getattr(method, "guidance", None) if settings.solver == JUMP else None
    return {
        "shape": list(info.image_shape),
        "classes": list(info.class_names or map(str, range(info.num_classes))),
        "inputs": list(network(sampler)[1]),
        "parameters": sum(array.size for array in jax.tree.leaves(sampler.params)),
        "weights": getattr(method, "weights", None),
        "guided": info.can_be_guided,
        "clip": bool(getattr(method, "clip_data", False)),
        "seed": SEED,
        "flow": flow | {"weight": float(settings.weight if rule is None else rule.weight)},
    }


def opening(sampler: Sampler) -> Settings:
    """How the page draws when it opens."""
    chosen = choices(sampler)
    if not sampler.method.second_time:
        return Settings().replace(**chosen["flow"])
    return Settings().replace(solver=JUMP, steps=1, weight=chosen["flow"]["weight"] if chosen["weights"] else 1.0)


def first_images(sampler: Sampler) -> np.ndarray:
    """Each class from the noise of the first seed, as the page draws it when it opens, uint8 [classes, H, W, C]."""
    labels = np.arange(sampler.num_classes, dtype=np.int32)
    noise = example_normal(jax.random.key(SEED), np.zeros_like(labels), sampler.image_shape)
    params = jax.tree.map(as_stored, jax.device_get(sampler.params))
    return sampler.sample(labels, settings=opening(sampler), noise=noise, params=params).images


def network(sampler: Sampler) -> tuple[Callable[..., Any], Arrays]:
    """The network with its weights inside, and an example of its inputs in their order, by name."""
    model, params = in_float32(sampler.model), jax.device_get(sampler.params)
    rng, count = np.random.default_rng(0), 8
    t = np.linspace(0, 1, count, dtype=np.float32)
    example = {
        "x": rng.standard_normal((count, *sampler.image_shape), np.float32),
        "t": t,
        "y": rng.integers(0, sampler.num_classes + sampler.info.can_be_guided, count, np.int32),
    }
    if sampler.method.second_time:
        example["r"] = (t + (1 - t) * rng.random(count, np.float32)).astype(np.float32)
    if getattr(sampler.method, "weights", None) is not None:
        example["w"] = np.linspace(*sampler.method.weights, count, dtype=np.float32)

    def call(x: Any, t: Any, y: Any, *more: Any) -> Any:
        rounded = jax.tree.map(as_stored, params)
        return model.apply({"params": rounded}, x, t, y, **dict(zip(list(example)[3:], more, strict=True)))

    return call, example


def as_stored(array: np.ndarray) -> np.ndarray:
    """The numbers of an array of weights that the page computes with, float32."""
    return array.astype(np.float16).astype(np.float32) if array.size >= LARGE else array


def convert(sampler: Sampler) -> bytes:
    """The network as ONNX for any batch, large weights as float16 that are cast where they are used."""
    for name in ("jax2onnx", "onnx_ir"):  # they warn of libraries that are not needed and of shapes that are not known
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        from jax2onnx import to_onnx
        from onnx import TensorProto, helper, numpy_helper
    except ImportError as error:
        sys.exit(f"build.py: {error.name} is not installed; pip install --no-deps -r {HERE / 'requirements.txt'}")
    call, example = network(sampler)
    inputs = [jax.ShapeDtypeStruct(("B", *array.shape[1:]), array.dtype) for array in example.values()]
    model = to_onnx(call, inputs, opset=OPSET, input_names=list(example), output_names=["u"])
    casts = []
    for weights in model.graph.initializer:
        if weights.data_type == TensorProto.FLOAT and np.prod(weights.dims) >= LARGE:
            half = numpy_helper.from_array(numpy_helper.to_array(weights).astype(np.float16), f"{weights.name}_half")
            casts.append(helper.make_node("Cast", [half.name], [weights.name], to=TensorProto.FLOAT))
            weights.CopyFrom(half)
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:], model.graph.value_info[:]
    model.graph.node.extend(nodes)
    return bytes(model.SerializeToString())


def compare(onnx: bytes, sampler: Sampler) -> None:
    """Leaves with one line where ONNX and JAX do not compute the same."""
    import onnxruntime

    call, example = network(sampler)
    (found,) = onnxruntime.InferenceSession(onnx, providers=["CPUExecutionProvider"]).run(None, example)
    wanted = np.asarray(jax.jit(call)(*example.values()))
    error = np.abs(found - wanted).max() / np.abs(wanted).max()
    print(f"ONNX and JAX differ by {error:.1e} of the largest number")
    if not error < TOLERANCE:
        sys.exit(f"build.py: that is more than {TOLERANCE}; the network was not converted as it is")


def fetch_runtime(out: Path) -> None:
    """Puts the files of onnxruntime-web that the page loads into a new folder."""
    if shutil.which("npm") is None:
        sys.exit("build.py: npm is not installed, which fetches onnxruntime-web; install Node.js")
    out.mkdir()
    with tempfile.TemporaryDirectory() as folder:
        command = ["npm", "pack", RUNTIME, "--silent", "--pack-destination", folder]
        if subprocess.run(command, stdout=subprocess.DEVNULL).returncode:
            sys.exit(f"build.py: npm could not fetch {RUNTIME}")
        (package,) = Path(folder).glob("*.tgz")
        with tarfile.open(package) as files:
            for name in RUNTIME_FILES:
                (out / name).write_bytes(files.extractfile(f"package/dist/{name}").read())


if __name__ == "__main__":
    main()
