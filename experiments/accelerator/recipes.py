"""Stage: short recipes for MNIST, all trained at once and judged at their half and their end.

They share the device, so that their seconds say little: how much a number of steps, a batch, an optimiser and its rate
teach is compared. The stage `digits` then trains one of them alone, against the clock (`--recipe`).
"""

import contextlib
import json
import subprocess
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import stage as stages
from digits import ACCURACY, TIMES_FLOOR, TINY, floor, toy_set

MUON = {"optimizer.name": "muon", "optimizer.learning_rate": 6e-3, "optimizer.warmup_steps": 0, "model.dropout": 0.0}
# The network of the recipe for CPUs: its convolutions see 14 x 14 positions.
LIGHT = {"model.base_channels": 48, "model.channel_multipliers": "(1,2)", "model.num_res_blocks": 1,
         "model.patch_size": 2, "model.embedding_dim": 192, "model.attention_resolutions": "()"}  # fmt: skip
TRIALS: dict[str, tuple[int, int, dict[str, Any]]] = {  # steps, batch, other changes
    "Muon, half as many steps": (1000, 512, MUON),
    "Muon": (2000, 512, MUON),
    "Muon, batch 256": (2000, 256, MUON),
    "Muon, batch 256, twice the rate": (2000, 256, MUON | {"optimizer.learning_rate": 12e-3}),
    "Muon, light": (4000, 256, MUON | LIGHT),
    "Adam": (2000, 512, {"optimizer.warmup_steps": 200}),
}


def main(stage: stages.Stage) -> None:
    path = toy_set(stage.work / "toy_trials") if stage.tiny else stage.order.get("mnist")
    if not path:
        raise RuntimeError("there are no digits: give --mnist=FOLDER with the four IDX files")
    chosen = dict(list(TRIALS.items())[:1]) if stage.tiny else TRIALS
    running = {name: start(stage, name, str(path), *trial) for name, trial in chosen.items()}
    while any(process.poll() is None for process in running.values()) and stage.left() > 2:
        time.sleep(1)
        with contextlib.suppress(json.JSONDecodeError):  # a line is being written
            record(stage, running)
    for process in running.values():
        if process.poll() is None:
            stages.end(process)
    found = record(stage, running)
    for name, lines in found.items():
        steps, batch, _ = TRIALS[name]
        last = lines[-1] if lines else None
        stage.row(f"{name}, {steps} x {batch}", f"FID {last['fid']:.3f}, accuracy {last['class_accuracy']:.2%} at "
                  f"{last['step']}" if last else "nothing yet", f"{TIMES_FLOOR * floor('mnist'):.2f}, {ACCURACY:.0%}",
                  None if stage.tiny or last is None else good(last))  # fmt: skip


def start(
    stage: stages.Stage, name: str, path: str, steps: int, batch: int, changes: dict[str, Any]
) -> subprocess.Popen:
    """A training of its own; quality.jsonl in its folder says how good it is."""
    keys = {"data.params.path": path, "train.num_steps": steps, "train.batch_size": batch, "log.eval_every": 0,
            "log.samples_every": 0, "checkpoint.every": steps, "log.quality_every": steps // 2,
            "log.quality_samples": 5000, "ema.decays": f"({1 - 10 / steps},)", "train.label_dropout": 0.1,
            **changes}  # fmt: skip
    if stage.tiny:
        keys |= TINY | {"data.source": "idx", "data.params.name": "mnist", "data.params.num_classes": 10,
                        "log.quality_every": 20, "log.quality_samples": 140}  # fmt: skip
    overrides = [f"--config.{key}={value}" for key, value in keys.items()]
    return stages.start_command(
        stages.fmd("--config=configs/mnist_cfg_strong.py", f"--workdir={folder(stage, name)}", *overrides)
    )


def record(stage: stages.Stage, names: Iterable[str]) -> dict[str, list[dict[str, Any]]]:
    """The quality of each trial so far."""
    found = {name: stages.read_lines(folder(stage, name) / "quality.jsonl") for name in names}
    stage.record(trials=found)
    return found


def folder(stage: stages.Stage, name: str) -> Path:
    return stage.work / "trials" / name.replace(" ", "_").replace(",", "")


def good(last: dict[str, Any]) -> bool:
    """True where FID and accuracy are what the proof asks for."""
    return last["fid"] <= TIMES_FLOOR * floor("mnist") and last["class_accuracy"] >= ACCURACY


if __name__ == "__main__":
    stages.run(main)
