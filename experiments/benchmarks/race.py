"""Minutes from the command to good digits: fmd and PyTorch by one recipe, in turns on one machine.

    pip install -e '.[benchmark]'
    python experiments/benchmarks/race.py --seeds 123 124 125 --json=race.json

Each contestant trains `configs/mnist_cfg_strong.py` from nothing in a process of its own: fmd by its command, with all
that its trainer writes, PyTorch by torch_race.py, which does what the recipe says and no more (the same network, Muon,
learning rates, average; tests/experiments/test_race.py compares their steps). They run in turns, --turn seconds each,
all others stopped meanwhile (turns.py): so each has the whole machine, and what else that does meets all alike. The
time of a checkpoint is that from the command until it is on disk, own turns only: imports, data and compilation with
empty caches are part of it, and for fmd's last one a grid of ten samples and a validation.

Afterwards --n_samples digits are drawn from the average in each checkpoint by 5 guided midpoint steps, 0 to 9 in turn,
and judged as by `--mode=eval --samples=FILE --source=mnist`. All start from the same noise of a seed: from another the
accuracy differs, with a standard deviation of .3 %. The time to a quality is that of the first checkpoint with this FID
and accuracy or better ones, so it is known to --every steps.

What is in --out is not done again, so a race can be run in parts; a training that failed or was cut off begins anew.
The others go on without one that fails.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from against_pytorch import CASES, ROOT, VARIANTS
from bench import HERE, machine, save, table
from jax_worker import resolve, settings_of
from turns import Runner, take_turns

import fmd
from fmd import cli, data
from fmd.evaluation import evaluate
from fmd.files import atomic_path, write_json
from fmd.training.optimizers import learning_rate

CONFIG = CASES["mnist"]["config"]
QUALITIES = {"FID 1.0, 98.5 %": (1.0, 0.985), "FID 0.8, 99 %": (0.8, 0.99), "FID 0.7, 99 %": (0.7, 0.99)}
PEER = ROOT / "experiments" / "reference" / "results"  # torchcfm's packaged network, see experiments/peers
# All checkpoints, and as little beside as its trainer allows.
KEPT = {"checkpoint.keep_last": 99, "log.eval_every": 0, "log.eval_examples": 1, "log.samples_every": 0,
        "log.samples_per_class": 1}  # fmt: skip


@dataclass(frozen=True)
class Race:
    """The orders that all contestants share."""

    out: Path
    every: int  # steps from checkpoint to checkpoint
    overrides: Mapping[str, Any]  # of the config
    torch_python: str
    n_samples: int
    settings: Mapping[str, Any]  # of the config, for torch_worker.py
    rates: Sequence[float]  # of learning, for each step

    def folder(self, name: str, seed: int) -> Path:
        return self.out / f"seed{seed}" / name

    def runner(self, name: str, seed: int) -> Runner:
        """A training from nothing, whatever is left of an earlier one."""
        folder = self.folder(name, seed)
        shutil.rmtree(folder, ignore_errors=True)
        (folder / "run").mkdir(parents=True)
        if name == "fmd":
            told = {**self.overrides, **KEPT, "seed": seed, "checkpoint.every": self.every}
            flags = [f"--config={ROOT / CONFIG}", f"--workdir={folder / 'run'}"]
            flags += [f"--config.{key}={value}" for key, value in told.items()]
            return Runner([sys.executable, "-m", "fmd.main", *flags], folder)
        kept = folder / "run" / "checkpoints"
        kept.mkdir()
        order = {"task": "train", "rates": self.rates, "data": str(self.out / "train.npz"), "out": str(kept)}
        return Runner(self.torch(name, seed, folder, order | {"every": self.every}), folder)

    def noise(self, seed: int) -> Path:
        """The file of the noise [n_samples, H, W, C] that digits of all contestants are drawn from."""
        path = self.out / f"seed{seed}" / "noise.npy"
        if not path.exists():
            shape = (self.n_samples, *self.settings["shape"])
            with atomic_path(path) as unfinished:
                np.save(unfinished, np.random.default_rng(seed).standard_normal(shape, np.float32))
        return path

    def torch(self, name: str, seed: int, folder: Path, order: Mapping[str, Any]) -> list[str]:
        """The command that carries out an order of torch_race.py."""
        path = folder / f"{order['task']}.json"
        path.write_text(json.dumps({**order, "variant": name, "seed": seed, "settings": self.settings}))
        return [self.torch_python, str(HERE / "torch_race.py"), str(path)]

    def draw(self, name: str, seed: int, steps: Sequence[int]) -> None:
        """Writes samples_STEP.npz for these checkpoints."""
        folder = self.folder(name, seed)
        kept = folder / "run" / "checkpoints"
        noise = self.noise(seed)
        if name != "fmd":
            order = {"task": "draw", "kept": str(kept), "out": str(folder), "steps": steps, "noise": str(noise)}
            subprocess.run(self.torch("eager", seed, folder, order), check=True)  # not timed, so not compiled
            return
        labels, start = np.arange(self.n_samples, dtype=np.int32) % 10, np.load(noise)
        for step in steps:
            images = fmd.load(kept / str(step))(labels, noise=start)
            with atomic_path(folder / f"samples_{step}.npz") as path:
                np.savez_compressed(path, images=images, labels=labels)


def judge(race: Race, name: str, seed: int, dataset: data.ImageDataset, first: int = 0) -> list[dict[str, float]]:
    """Step, seconds, FID and accuracy of each checkpoint from `first` on; none of a training that failed."""
    folder, found = race.folder(name, seed), []
    if not (folder / "times.json").exists():
        return found
    times = json.loads((folder / "times.json").read_text())["checkpoints"]
    files = {int(step): folder / f"samples_{step}.npz" for step in times if int(step) >= first}
    if missing := sorted(step for step, path in files.items() if not path.exists()):
        race.draw(name, seed, missing)
    for step, path in sorted(files.items()):
        judged = path.with_suffix(".json")
        if not judged.exists():
            write_json(judged, evaluate.judge_file(path, dataset, evaluate.Request(), quiet=True))
        figures = json.loads(judged.read_text())["figures"]
        found.append({"step": step, "seconds": times[str(step)], "fid": figures["test"]["fid"],
                      "accuracy": figures["class_accuracy"]})  # fmt: skip
    return found


def seconds_to(checkpoints: Sequence[Mapping[str, float]], fid: float, accuracy: float) -> float | None:
    """Seconds until the first checkpoint of this quality; None where there is none."""
    good = (c["seconds"] for c in checkpoints if c["fid"] <= fid and c["accuracy"] >= accuracy)
    return min(good, default=None)


def in_minutes(found: Sequence[float | None]) -> str:
    """The median of the seeds, their range, and how many of them arrived."""
    minutes = [seconds / 60 for seconds in found if seconds is not None]
    if not minutes:
        return "-"
    spread = f" ({min(minutes):.1f} to {max(minutes):.1f})" if len(minutes) > 1 else ""
    missed = f", {len(minutes)} of {len(found)}" if len(minutes) < len(found) else ""
    return f"{statistics.median(minutes):.1f}{spread}{missed}"


def show(results: Mapping[str, Mapping[int, Sequence[Mapping[str, float]]]], peer: Mapping[str, float]) -> str:
    """The table of all contestants, in minutes, and the peer as it was measured."""
    rows = []
    for name, seeds in results.items():
        reached = [in_minutes([seconds_to(c, *quality) for c in seeds.values()]) for quality in QUALITIES.values()]
        ends = [c[-1] for c in seeds.values() if c]
        whole = in_minutes([c[-1]["seconds"] if c else None for c in seeds.values()])
        quality = ["failed", "-"]
        if ends:
            fid, accuracy = (statistics.median(end[key] for end in ends) for key in ("fid", "accuracy"))
            quality = [f"{fid:.2f}", f"{accuracy:.1%}"]
        rows.append([name, *reached, whole, *quality])
    minutes = [in_minutes([seconds_to([peer], *quality)]) for quality in QUALITIES.values()]
    whole = in_minutes([peer["seconds"]])
    rows.append(["torchcfm as it comes", *minutes, whole, f"{peer['fid']:.2f}", f"{peer['accuracy']:.1%}"])
    return table(["minutes to", *QUALITIES, "the end", "FID there", "accuracy"], rows)


def torchcfm() -> dict[str, float]:
    """The end of torchcfm's packaged network: published figures, steps alone."""
    training, judged = (json.loads((PEER / f"mnist_torchcfm_850_{part}.json").read_text())
                        for part in ("training", "heun10"))  # fmt: skip
    return {"step": training["steps"], "seconds": training["training_seconds"],
            "fid": judged["figures"]["test"]["fid"], "accuracy": judged["figures"]["class_accuracy"]}  # fmt: skip


def prepare(args: argparse.Namespace, dataset: data.ImageDataset) -> Race:
    """Reads the recipe, and writes the training set as PyTorch's side takes it."""
    config = resolve({"config": str(ROOT / CONFIG), "overrides": args.overrides})
    o, steps = config.optimizer, config.train.num_steps
    if (o.name, o.weight_decay, config.path.times.name) != ("muon", 0.0, "stratified"):
        raise SystemExit("torch_race.py knows Muon without weight decay and stratified times; it has to learn the rest")
    schedule = learning_rate(o.learning_rate, steps, warmup_steps=o.warmup_steps, decay=o.decay)
    out = args.out.absolute()
    out.mkdir(parents=True, exist_ok=True)
    told = {"every": args.every, "n_samples": args.n_samples, "overrides": args.overrides}
    if (out / "race.json").exists() and json.loads((out / "race.json").read_text()) != told:
        raise SystemExit(f"{out} holds a race of another kind, {out}/race.json; choose another --out")
    write_json(out / "race.json", told)
    np.savez(out / "train.npz", images=dataset.train.images, labels=dataset.train.labels)
    return Race(out, args.every, args.overrides, args.torch_python, args.n_samples,
                settings_of(config, dataset.image_shape), [float(schedule(step)) for step in range(steps)])  # fmt: skip


def torch_version(python: str) -> str:
    """The release of PyTorch that an interpreter has; ends the race before it begins where it has none."""
    asked = subprocess.run([python, "-c", "import torch; print(torch.__version__)"], capture_output=True, text=True)
    if asked.returncode:
        raise SystemExit(f"{python} has no torch; give --torch_python, the interpreter of an environment with it")
    return asked.stdout.strip()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[123, 124, 125])
    parser.add_argument("--contestants", nargs="+", choices=["fmd", *VARIANTS], default=["fmd", "eager"])
    parser.add_argument("--torch_python", default=sys.executable, help="interpreter of another environment, with torch")
    parser.add_argument("--every", type=int, default=300, help="steps from checkpoint to checkpoint")
    parser.add_argument("--judge_from", type=int, default=0, help="step of the first checkpoint to judge")
    parser.add_argument("--turn", type=float, default=20, help="seconds")
    parser.add_argument("--n_samples", type=int, default=2000, help="digits to judge a checkpoint by")
    parser.add_argument("--overrides", type=json.loads, default={}, help='keys of the config: {"a.b": value}')
    parser.add_argument("--out", type=Path, default=Path("runs/race"), help="folder for all that is kept")
    parser.add_argument("--json", type=Path, help="where to write the numbers")
    args = parser.parse_args()

    cli.use_compilation_cache()
    versions = {"jax": jax.__version__, "torch": torch_version(args.torch_python)}
    facts = machine() | versions | {"cores_used": len(os.sched_getaffinity(0))}
    dataset = data.load("mnist")
    race = prepare(args, dataset)
    for seed in args.seeds:
        missing = [name for name in args.contestants if not (race.folder(name, seed) / "times.json").exists()]
        take_turns([race.runner(name, seed) for name in missing], args.turn)
    results = {
        name: {seed: judge(race, name, seed, dataset, args.judge_from) for seed in args.seeds}
        for name in args.contestants
    }
    print(show(results, torchcfm()))
    numbers = {"samples": args.n_samples, "overrides": args.overrides, "results": results, "torchcfm": torchcfm()}
    save(args.json, numbers, facts)


if __name__ == "__main__":
    main()
