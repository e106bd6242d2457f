"""Stage: the device computes what a CPU computes, in every layout, and from an exported file.

A small network with every kind of layer and weights that are nowhere zero takes three training steps and draws guided
images, in a process for each variant; all go side by side, since compiling takes most of their time. The reference is
one on the CPU of the same machine, in float32 at highest precision.
"""

import json
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import numpy as np
import programs
import stage as stages

HERE = Path(__file__).resolve()
TINY = {"model__channel_multipliers": (1,), "model__attention_resolutions": (8,)}
NEAR = 1e-5  # relative difference of loss, gradient norm, parameters and velocity from the CPU's
CPU = "on the CPU"
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {  # matrix product precision, changes of the config
    "float32 at highest": ("highest", {}),
    "float32 by default": ("default", {}),
    "bfloat16": ("default", {"model__dtype": "bfloat16"}),
    "pmap": ("highest", {"parallel__mode": "pmap", "sampled": False}),
    "mesh": ("highest", {"parallel__mode": "mesh", "sampled": False}),
}


def main(stage: stages.Stage) -> None:
    changes = TINY if stage.tiny else {}
    chosen = {CPU: VARIANTS["float32 at highest"], **VARIANTS}
    if stage.tiny:
        chosen.pop("float32 by default")  # on a CPU it is the same
    with ThreadPoolExecutor(2 if stage.tiny else len(chosen)) as pool:
        coming = {name: pool.submit(apart, stage, name, changes) for name in chosen}
        grey = exported_against_sampled(changes)
        found = {name: future.result() for name, future in coming.items()}
    reference = found.pop(CPU)
    compared = {name: {key: difference(own[key], reference[key]) for key in own} for name, own in found.items()}
    stage.record(against_the_cpu=compared)
    for name in (name for name in found if "images" in compared[name]):
        worst = max(compared[name][key] for key in ("loss", "gradient norm", "parameters", "velocity"))
        judged = name == "float32 at highest"
        stage.row(f"against the CPU, {name}", said(worst, compared[name]["images"]), f"{NEAR:.0e}" if judged else "",
                  worst <= NEAR and compared[name]["images"] <= 1 if judged else None)  # fmt: skip

    ours = found["float32 at highest"]
    layouts = {name: {key: difference(found[name][key], ours[key]) for key in found[name]} for name in ("pmap", "mesh")}
    stage.record(against_jit=layouts)
    for name, one in layouts.items():
        worst = max(one[key] for key in ("loss", "gradient norm", "parameters"))
        stage.row(f"{name} against jit", f"{worst:.1e}", f"{NEAR:.0e}", worst <= NEAR)

    stage.record(exported_grey_levels=grey)
    stage.row("exported program against the sampler", f"{grey:.0f} grey levels at most", "1", grey <= 1)


def apart(stage: stages.Stage, name: str, changes: dict[str, Any]) -> dict[str, np.ndarray]:
    """The numbers of a variant from a process of its own; that named CPU sees no other device."""
    file = stage.work / f"numbers_{name.replace(' ', '_')}.npz"
    env = {"JAX_PLATFORMS": "cpu"} if name == CPU else None
    stages.run_command([sys.executable, HERE, file, name, json.dumps(changes)], stage.left(), env=env)
    with np.load(file) as kept:
        return dict(kept)


def numbers(name: str, changes: dict[str, Any]) -> dict[str, np.ndarray]:
    """The numbers of the small network in a variant."""
    precision, own = VARIANTS["float32 at highest" if name == CPU else name]
    with jax.default_matmul_precision(precision):
        return programs.small_numbers(**changes | own)


def difference(found: np.ndarray, wanted: np.ndarray) -> float:
    """Largest difference of images in grey levels, else the relative one in the Euclidean norm."""
    if wanted.dtype == np.uint8:
        return float(np.abs(found.astype(int) - wanted.astype(int)).max())
    error = np.linalg.norm(np.ravel(found.astype(np.float64) - wanted))
    return float(error / np.linalg.norm(np.ravel(wanted.astype(np.float64))))


def said(worst: float, grey: float) -> str:
    return f"{worst:.1e}, images {grey:.0f} of 255"


def exported_against_sampled(changes: dict[str, Any]) -> float:
    """Grey levels between what the exported program and the sampler draw from the same noise on this device."""
    from jax import export

    inputs = programs.small_inputs()
    with jax.default_matmul_precision("highest"):
        program = export.deserialize(bytearray(programs.small_export(**changes)))
        drawn = np.asarray(jax.jit(program.call)(*inputs))
        return difference(drawn, programs.small_images(programs.small(**changes)))


if __name__ == "__main__":
    if sys.argv[1].endswith(".npz"):  # the process of a variant
        np.savez(sys.argv[1], **numbers(sys.argv[2], json.loads(sys.argv[3])))
    else:
        stages.run(main)
