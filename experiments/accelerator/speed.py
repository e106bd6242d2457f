"""Stage: training step and guided sampler against PyTorch.

The comparison is that of experiments/benchmarks/against_pytorch.py: the same network to the parameter, processes timed
in turn, PyTorch with channels_last, bfloat16 under autocast and torch.compile. Each part is a command of its own; one
that fails or runs over is a line that says so.
"""

import json
import runpy
import sys
from importlib.util import find_spec
from typing import Any

import stage as stages

from fmd.models.flops import TRAINING, peak, utilisation

TINY = {"model.base_channels": 8, "model.channel_multipliers": (1,), "model.num_res_blocks": 1, "model.patch_size": 2,
        "model.embedding_dim": 16, "model.head_dim": 8, "train.batch_size": 8, "train.steps_per_dispatch": 1,
        "optimizer.name": "adam", "sample.steps": 1}  # fmt: skip
TINY_OF = {"mnist": {"model.attention_resolutions": (14,)}, "cifar10": {"model.attention_resolutions": (16,)}}
CONFIGS = {"mnist": "mnist_cfg_strong", "cifar10": "cifar10"}
TRAIN_IMAGES = {"mnist": 60_000, "cifar10": 50_000}  # as many as a real run has, so that it finds the program compiled
TARGET = 1.3
UTILISATION = 0.25
LEAST = 150  # seconds that a part needs: two compilations, one of them by PyTorch
PARTS = [("train", "cifar10"), ("train", "mnist"), ("sample", "cifar10"), ("sample", "mnist")]


def main(stage: stages.Stage) -> None:
    for task, case in (("train", "mnist"), ("sample", "mnist")) if stage.tiny else PARTS:
        name = f"{task} {case}"
        if stage.left() < LEAST and not stage.tiny:
            stage.row(name, "left out: no time")
            continue
        try:
            against_pytorch(stage, task, case)
        except Exception as error:
            stage.row(name, f"failed: {str(error)[:200]}")


def overrides(stage: stages.Stage, case: str) -> dict[str, Any]:
    """Changes of a case's config: those that make a rehearsal quick, else its own settings of the optimiser.

    against_pytorch.py asks for Adam by name, which drops them; with them the program is that of a real run, and
    whichever comes second finds it compiled.
    """
    if stage.tiny:
        return TINY | TINY_OF[case]
    config = runpy.run_path(str(stages.ROOT / "configs" / f"{CONFIGS[case]}.py"))["get_config"]()
    return {f"optimizer.{key}": value for key, value in config.optimizer.to_dict().items() if key != "name"}


def against_pytorch(stage: stages.Stage, task: str, case: str) -> None:
    """One comparison, with model FLOP utilisation."""
    torch = find_spec("torch") is not None
    file = stage.work / f"{task}_{case}.json"
    options = ["--variants", *(["compile"] if torch and not stage.tiny else ["channels_last"] if torch else [])]
    options += [f"--seconds={0.5 if stage.tiny else 5}", f"--count={8 if stage.tiny else 512}"]
    options += [f"--train_images={64 if stage.tiny else TRAIN_IMAGES[case]}", f"--json={file}"]
    options += ["--overrides", json.dumps(overrides(stage, case))]
    command = [sys.executable, stages.BENCHMARKS / "against_pytorch.py", task, case, *options]
    stages.run_command(command, stage.left())
    numbers = json.loads(file.read_text())["variants"]
    ours = numbers["fmd"]
    passes = TRAINING if task == "train" else 2 * 2 * ours["settings"]["steps"]  # midpoint, guided
    per_image = ours["forward_flops"] * passes
    product = stage.known("environment").get("bfloat16")
    for one in numbers.values():
        one["utilisation"] = utilisation(one["images_per_second"], per_image, peak(ours["device"]))
        one["of_measured_product"] = utilisation(one["images_per_second"], per_image, product)
    stage.record(**{f"{task} {case}": numbers, f"{task} {case} flops per image": per_image})

    share, memory = ours["utilisation"], ours["peak_device_bytes"] or ours["peak_resident_bytes"]
    value = [f"{ours['images_per_second']:.0f} images/s", f"{memory / 2**30:.2f} GiB"]
    value += [f"{ours['prepare_seconds']:.0f} s to start"]
    value += [f"utilisation {share:.1%}"] if share else []
    value += [f"{ours['of_measured_product']:.1%} of a bfloat16 product"] if product else []
    judged = (task, case) == ("train", "cifar10") and share is not None
    stage.row(f"{task} {case}", ", ".join(value), f"utilisation {UTILISATION:.0%}" if judged else "",
              share >= UTILISATION if judged else None)  # fmt: skip
    for name in numbers.keys() - {"fmd"}:
        ratio = numbers[name]["fmd_is_faster_by"]
        judged = task == "train" and name == "compile"
        stage.row(f"{task} {case} over PyTorch, {name}", f"{ratio:.2f} times", f"{TARGET}" if judged else "",
                  ratio >= TARGET if judged else None)  # fmt: skip
    if not torch:
        stage.row(f"{task} {case} over PyTorch", "no torch here")


if __name__ == "__main__":
    stages.run(main)
