"""Stage: the training step against changes of it, in one process in turn: what a review suspects, and what may help.

The kernels and the program of the step as it is are looked at, too.
"""

import json
import sys
from pathlib import Path
from typing import Any

import stage as stages
from speed import CONFIGS, TRAIN_IMAGES, overrides

VARIANTS: dict[str, dict[str, Any]] = {
    "as it is": {},
    "Flax's group normalisation": {"change": "Flax's group normalisation"},
    "no barriers": {"change": "no barriers"},
    "layers over four axes": {"change": "layers over four axes"},
    "cuDNN attention": {"change": "cuDNN attention"},
    "1 step per dispatch": {"overrides": {"train.steps_per_dispatch": 1}},
    "no dropout": {"overrides": {"model.dropout": 0.0}},
    "deterministic": {"compiler": {"xla_gpu_deterministic_ops": True}},
}

REHEARSED = ("as it is", "Flax's group normalisation", "cuDNN attention")


def main(stage: stages.Stage) -> None:
    chosen = {name: VARIANTS[name] for name in (REHEARSED if stage.tiny else VARIANTS)}
    for case in ("mnist",) if stage.tiny else ("cifar10", "mnist"):
        try:
            compare(stage, f"variants of {case}", CONFIGS[case], chosen, overrides(stage, case),
                    train_images=64 if stage.tiny else TRAIN_IMAGES[case], kernels=True)  # fmt: skip
        except Exception as error:
            stage.row(f"variants of {case}", f"failed: {str(error)[:200]}")


def compare(
    stage: stages.Stage, name: str, config: str, chosen: dict[str, Any], changes: dict[str, Any], **more: Any
) -> None:
    """Runs compare.py, and adds a line per variant with its speed over that of the first."""
    file = Path(stage.work) / f"{name.replace(' ', '_')}.json"
    order = {"config": config, "variants": chosen, "overrides": changes, "seconds": 0.3 if stage.tiny else 2, **more}
    order["begin_within"] = (1 if stage.tiny else 0.3) * stage.left()
    try:
        stages.run_command([sys.executable, stages.HERE / "compare.py", json.dumps(order), file], stage.left())
    finally:
        found = json.loads(file.read_text()) if file.exists() else {}
        stage.record(**{name: found})
    first, *_ = (one for one in found["variants"].values() if "images_per_second" in one)
    stage.row(f"{config}, donation", f"{first['aliased_bytes'] / first['state_bytes']:.1%} of the state, "
              f"{first['donation_warnings']} warnings", "all of it", donated(first))  # fmt: skip
    for what, one in found["variants"].items():
        if "error" in one:
            stage.row(f"{config}, {what}", one["error"][:100])
            continue
        ratio = one["images_per_second"] / first["images_per_second"]
        stage.row(f"{config}, {what}", f"{one['images_per_second']:.0f} images/s, {ratio:.3f}; compiled in "
                  f"{one['compile_seconds']:.0f} s, {one['temporary_bytes'] / 2**30:.2f} GiB")  # fmt: skip
    if found.get("kernels", {}).get("most_expensive"):
        told = found["kernels"]
        top = told["most_expensive"][0]
        stage.row(f"{config}, kernels", f"{told['launches_per_call']:.0f} a call; {told['share_of_moving']:.1%} of the "
                  f"time only moves; first {top['kernel'][:40]} {top['share']:.1%}")  # fmt: skip


def donated(facts: dict[str, Any]) -> bool:
    """True where a step writes its new state over the old one."""
    return facts["aliased_bytes"] >= facts["state_bytes"] and not facts["donation_warnings"]


if __name__ == "__main__":
    stages.run(main)
