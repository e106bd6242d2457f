"""Stage: the full recipes of MNIST and Fashion-MNIST from nothing to `--mode=eval` and the sweep over weights.

While it trains, the recipe is judged every thousand steps by 5,000 samples, as `--mode=eval` judges; so the log has
the step, and with it the seconds of training, at which 99 % of the samples are recognised and the FID is twice that of
real images. Those seconds leave compilation and the judging itself out; "wall" has all of it.
"""

import gzip
import json
import struct
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import pictures
import stage as stages

FLOORS = stages.ROOT / "experiments" / "reference" / "results"  # FID of as many training images as samples
ACCURACY = 0.99
TIMES_FLOOR = 2.0
MANY = 10_000  # samples to judge, for the memory that it takes
TARGET = 30.0  # seconds of training
MOST_OVER_BARE = 1.03
LEAST = {"mnist": 60, "fashion_mnist": 90}  # seconds that a set needs
CONFIGS = {"mnist": "mnist_cfg_strong", "fashion_mnist": "fashion_mnist"}
TINY = {"train.num_steps": 20, "train.batch_size": 32, "model.base_channels": 8, "model.embedding_dim": 16,
        "model.channel_multipliers": "(1,)", "model.attention_resolutions": "()", "sample.steps": 1,
        "optimizer.warmup_steps": 0, "checkpoint.every": 20, "log.every": 10, "log.eval_every": 20,
        "log.samples_every": 20, "log.samples_per_class": 1, "log.eval_examples": 20}  # fmt: skip


def main(stage: stages.Stage) -> None:
    data = {name: stage.order[name] for name in CONFIGS if stage.order.get(name)}
    if stage.tiny:
        data = {"mnist": toy_set(stage.work / "toy_mnist")}
    if not data:
        raise RuntimeError("there are no digits: give --mnist=FOLDER with the four IDX files")
    for name, path in data.items():
        if not stage.tiny and stage.left() < LEAST[name]:
            stage.row(name, "left out: no time")
            continue
        recipe(stage, name, str(path))


def recipe(stage: stages.Stage, name: str, path: str) -> None:
    """Trains on one set, judges and sweeps, in this order, and writes what there is after each."""
    workdir = stage.work / "runs" / name
    found: dict[str, Any] = {}

    def run(what: str, *arguments: Any, keep: float = 0.0) -> None:
        memory = stage.work / f"memory_{what}.json"
        took = stages.run_command(stages.fmd(*arguments, memory=memory), stage.left() - keep)
        found[what] = {"seconds": round(took, 1), **(json.loads(memory.read_text()) if memory.exists() else {})}
        stage.record(**{name: found})

    every, samples = (20, 140) if stage.tiny else (1000, 5000)
    keys = {"log.quality_every": every, "log.quality_samples": samples, **(TINY if stage.tiny else {})}
    keys |= dict(change.split("=", 1) for change in stage.order.get("recipe", []))
    if stage.tiny:
        keys |= {"data.source": "idx", "data.params.name": name, "data.params.num_classes": 10}
    keys["data.params.path"] = path
    overrides = [f"--config.{key}={value}" for key, value in keys.items()]
    run("train", f"--config=configs/{CONFIGS[name]}.py", f"--workdir={workdir}", *overrides)
    found |= training_facts(workdir, floor(name))
    stage.record(**{name: found})
    show(stage, name, found)

    settings = f"--n_samples={samples}"
    grid = max((workdir / "samples").glob("step_*.png"))
    curves = {key: [(line["step"], line.get(key)) for line in found["quality"]] for key in ("fid", "class_accuracy")}
    pictures.save(stage.out / f"{name}.png", [grid], curves)
    run("eval", "--mode=eval", f"--checkpoint={workdir}", settings)
    found["eval"]["result"] = json.loads((workdir / "eval.json").read_text())
    figures = found["eval"]["result"]["figures"]
    stage.row(f"{name}, --mode=eval", f"FID {figures['test']['fid']:.3f} (floor {floor(name):.3f}), accuracy "
              f"{figures['class_accuracy']:.2%}")  # fmt: skip
    weights = "--sweep=weight=1,2" if stage.tiny else "--sweep=weight"
    run("sweep", "--mode=eval", f"--checkpoint={workdir}", weights, settings)
    found["sweep"]["result"] = json.loads((workdir / "sweep_weight.json").read_text())
    stage.record(**{name: found})
    best = min(found["sweep"]["result"]["rows"], key=lambda row: row["fid"])
    stage.row(f"{name}, best weight", f"{best['weight']}: FID {best['fid']:.3f}, accuracy {best['class_accuracy']:.2%}")
    swept = [path for path in [workdir / "sweep_weight.png"] if path.exists()]
    pictures.save(stage.out / f"{name}.png", [grid, *swept], curves)
    if not stage.tiny:
        run("eval of many", "--mode=eval", f"--checkpoint={workdir}", f"--n_samples={MANY}")
        memory = (found["eval of many"].get("peak_device_bytes") or 0) / 2**30
        stage.row(f"{name}, judging {MANY} samples", f"{found['eval of many']['seconds']:.0f} s, {memory:.2f} GiB")


def training_facts(workdir: Path, least_fid: float) -> dict[str, Any]:
    """Speed, memory and the way of the quality, from the logs that a run leaves."""
    timing = stages.read_lines(workdir / "timing.jsonl")
    quality = stages.read_lines(workdir / "quality.jsonl")
    seconds = dict(zip((line["step"] for line in timing), accumulate(line["seconds"] for line in timing), strict=True))
    whole = [sum(value for key, value in line.items() if key.endswith("seconds")) for line in timing]
    wall = dict(zip((line["step"] for line in timing), accumulate(whole), strict=True))
    rates = [line["images_per_second"] for line in timing if line.get("images_per_second")]
    reached = {
        "accuracy": [q["step"] for q in quality if (q.get("class_accuracy") or 0) >= ACCURACY],
        "fid": [q["step"] for q in quality if q["fid"] <= TIMES_FLOOR * least_fid],
    }
    both = sorted(set(reached["accuracy"]) & set(reached["fid"]))
    first = {what: steps[0] if steps else None for what, steps in (reached | {"both": both}).items()}
    beside = {key for line in timing for key in line if key.endswith("_seconds") and key != "seconds"}
    return {
        "images_per_second": float(np.median(rates)) if rates else None,
        "training_seconds": sum(line["seconds"] for line in timing),
        "beside": {key: sum(line.get(key, 0.0) for line in timing) for key in sorted(beside)},
        "peak_device_bytes": max((line.get("peak_memory_bytes") or 0 for line in timing), default=None),
        "reached": {what: {"step": step, "training_seconds": seconds.get(step), "wall_seconds": wall.get(step)}
                    for what, step in first.items()},
        "floor": least_fid,
        "quality": quality,
        "loss": [(line["step"], line["loss"]) for line in stages.read_lines(workdir / "metrics.jsonl")][9::10],
    }  # fmt: skip


def show(stage: stages.Stage, name: str, found: dict[str, Any]) -> None:
    """The lines of the table about training."""
    ready = found["beside"].get("compilation_seconds", 0.0)
    stage.row(f"{name}, the whole trainer", f"{found['images_per_second'] or 0:.0f} images/s, "
              f"{found['training_seconds']:.0f} s; first step after {ready:.0f} s")  # fmt: skip
    bare = stage.known(f"train_{name}").get("variants", {}).get("fmd")  # of the stage speed: the same program
    if bare and not stage.tiny:
        steps = found["loss"][-1][0] if found["loss"] else 0
        beside = sum(found["beside"].get(f"{what}_seconds", 0.0) for what in ("checkpoint", "sampling"))
        alone = steps * bare["settings"]["batch"] / bare["images_per_second"]
        found["over_its_bare_step"] = (found["training_seconds"] + beside) / alone
        stage.row(f"{name}, the whole trainer over its bare step", f"{found['over_its_bare_step']:.3f}; the loop alone "
                  f"{bare['images_per_second'] / found['images_per_second']:.3f}", f"{MOST_OVER_BARE}",
                  found["over_its_bare_step"] <= MOST_OVER_BARE)  # fmt: skip
    reached = found["reached"]["both"]
    value = "not reached" if reached["step"] is None else f"{reached['training_seconds']:.0f} s, step {reached['step']}"
    met = reached["step"] is not None and reached["training_seconds"] <= TARGET
    judged = name == "mnist" and not stage.tiny
    stage.row(f"{name}, to {ACCURACY:.0%} and twice the floor", value, f"{TARGET:.0f} s" if judged else "",
              met if judged else None)  # fmt: skip


def floor(name: str) -> float:
    """The FID of 5,000 real images of the set."""
    return json.loads((FLOORS / f"{name}_floor.json").read_text())["figures"]["test"]["fid"]


def toy_set(folder: Path) -> Path:
    """scikit-learn's digits at 28 x 28 as IDX files, for the rehearsal: smooth enough for MNIST's classifier."""
    from PIL import Image
    from sklearn.datasets import load_digits

    folder.mkdir(parents=True, exist_ok=True)
    digits = load_digits()
    small = [Image.fromarray(np.uint8(image * 15.9)) for image in digits.images]
    resized = [np.asarray(picture.resize((20, 20), Image.Resampling.BICUBIC)) for picture in small]
    images = np.pad(np.stack(resized), ((0, 0), (4, 4), (4, 4)))
    labels = digits.target.astype(np.uint8)
    for name, rows in (("train", slice(0, 400)), ("t10k", slice(400, 600))):
        for what, array in (("images-idx3", images[rows]), ("labels-idx1", labels[rows])):
            head = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
            (folder / f"{name}-{what}-ubyte.gz").write_bytes(gzip.compress(head + array.tobytes()))
    return folder


if __name__ == "__main__":
    stages.run(main)
