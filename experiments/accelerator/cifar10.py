"""Stage: minutes of training on CIFAR-10 from an archive of image files, then samples and the loss curve.

The archive (.tar, compressed or not) holds train/CLASS/*.jpg and test/CLASS/*.jpg. Training is stopped by a signal when
its time is over, and saves.
"""

import io
import json
import shutil
import signal
import subprocess
import tarfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pictures
import stage as stages
from digits import training_facts

AFTER = 45.0  # seconds kept for stopping and sampling
TINY = {"train.num_steps": 50, "train.batch_size": 16, "train.steps_per_dispatch": 1, "model.base_channels": 8,
        "model.channel_multipliers": "(1,)", "model.num_res_blocks": 1, "model.embedding_dim": 16,
        "model.patch_size": 2, "model.head_dim": 8,
        "model.dtype": "float32", "log.every": 1, "checkpoint.every": 50, "log.eval_every": 0, "log.samples_every": 0,
        "log.samples_per_class": 1, "log.eval_examples": 20, "sample.steps": 1}  # fmt: skip
# Nothing that the training step knows of: its program is that of the stage `speed`, compiled already.
FULL = {"log.eval_every": 500, "log.samples_every": 1000, "checkpoint.every": 1000}


def main(stage: stages.Stage) -> None:
    archive = stage.order.get("cifar10")
    if stage.tiny:
        archive = toy_archive(stage.work / "toy_cifar10.tar.xz")
    if not archive:
        raise RuntimeError("there is no CIFAR-10: give --cifar10=ARCHIVE")
    started = time.monotonic()
    folder = unpacked(Path(archive), stage.work / "cifar10")
    stage.record(unpacking_seconds=round(time.monotonic() - started, 1))

    workdir = stage.work / "runs" / "cifar10"
    keys: dict[str, Any] = {"data.source": "folder", "data.params.path": folder, "data.params.channels": 3}
    keys |= {"optimizer.warmup_steps": 1, **TINY} if stage.tiny else FULL
    arguments = ["--config=configs/cifar10.py", f"--workdir={workdir}", *(f"--config.{k}={v}" for k, v in keys.items())]
    process = stages.start_command(stages.fmd(*arguments))
    curve = follow(stage, process, workdir)
    if process.returncode:
        raise RuntimeError(f"the training ended with {process.returncode}; the log has its last words")
    found = training_facts(workdir, 0.0)
    found = {key: found[key] for key in ("images_per_second", "training_seconds", "beside", "peak_device_bytes")}
    steps = curve[-1][0]
    stage.record(**found, steps=steps, loss=curve)
    stage.row("cifar10, the whole trainer", f"{found['images_per_second'] or 0:.0f} images/s; {steps} steps in "
              f"{found['training_seconds']:.0f} s; loss {curve[0][1]:.3f} to {curve[-1][1]:.3f}")  # fmt: skip

    grid = stage.work / "cifar10.png"
    drawn = stages.fmd("--mode=sample", f"--checkpoint={workdir}", f"--n_samples={10 if stage.tiny else 100}",
                       f"--outfile={grid}", "--overwrite")  # fmt: skip
    took = stages.run_command(drawn, stage.left())
    pictures.save(stage.out / "cifar10.png", [grid], {"training loss": curve})
    stage.record(sampling_seconds=round(took, 1))


def follow(stage: stages.Stage, process: subprocess.Popen, workdir: Path) -> list[tuple[int, float]]:
    """The loss curve of a training, which is asked to stop when its time is over; recorded as it grows."""
    asked = False
    while process.poll() is None:
        if not asked and stage.left() < AFTER:
            process.send_signal(signal.SIGTERM)
            asked = True
        if stage.left() < AFTER / 3:
            stages.end(process)
        stage.record(loss=losses(workdir))
        time.sleep(1)
    return losses(workdir)


def losses(workdir: Path) -> list[tuple[int, float]]:
    """(step, loss) of each line of a run's log."""
    try:
        return [(line["step"], line["loss"]) for line in stages.read_lines(workdir / "metrics.jsonl")]
    except json.JSONDecodeError:  # a line is being written
        return []


def unpacked(archive: Path, folder: Path) -> Path:
    """The folder with the archive's files; unpacked once."""
    if not folder.exists():
        half = folder.with_name(f".{folder.name}")
        shutil.rmtree(half, ignore_errors=True)
        with tarfile.open(archive) as file:
            file.extraction_filter = getattr(tarfile, "data_filter", None)  # not known to Python 3.11.2
            file.extractall(half)
        half.replace(folder)
    return folder


def toy_archive(path: Path) -> Path:
    """An archive of a few coloured squares in ten classes, for the rehearsal."""
    from PIL import Image

    random = np.random.default_rng(0)
    with tarfile.open(path, "w:xz") as archive:
        for split, count in (("train", 6), ("test", 2)):
            for i in range(10 * count):
                image = io.BytesIO()
                pixels = np.full((32, 32, 3), 20 * (i % 10), np.uint8) + random.integers(0, 50, (32, 32, 3), np.uint8)
                Image.fromarray(pixels).save(image, "JPEG")
                entry = tarfile.TarInfo(f"{split}/class_{i % 10}/{i:04}.jpg")
                entry.size = len(image.getvalue())
                archive.addfile(entry, io.BytesIO(image.getvalue()))
    return path


if __name__ == "__main__":
    stages.run(main)
