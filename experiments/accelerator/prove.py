"""Proof of fmd on this machine's accelerator, in one command: right, fast, and able to learn. See README.md.

    python experiments/accelerator/prove.py --out=OUT --mnist=FOLDER --cifar10=ARCHIVE
    python experiments/accelerator/prove.py --out=OUT --stages=speed,digits --budget=420
    python experiments/accelerator/prove.py --out=OUT --tiny       # the rehearsal: everything, on a CPU, in minutes

Stages run one after another, in order of worth, each in processes of its own and with a time limit of its own; one that
fails or runs over does not take the others with it. What a stage finds is in OUT/results.json within a second. OUT also
gets the log and a picture per data set; --work keeps what does not come back.
"""

import argparse
import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent


class Limit(NamedTuple):
    """Seconds that a stage may take at most, and the fewest worth beginning with."""

    most: int
    least: int


STAGES = {
    "environment": Limit(60, 15),
    "agree": Limit(150, 60),
    "resume": Limit(150, 60),
    "speed": Limit(540, 150),
    "variants": Limit(300, 90),
    "recipes": Limit(300, 90),
    "digits": Limit(420, 90),
    "cifar10": Limit(240, 90),
    "transformer": Limit(180, 60),
}
DATA = ("mnist", "fashion_mnist", "cifar10")


def main() -> int:
    args = parse()
    out, work = args.out.absolute(), args.work.absolute()
    for folder in (out, work):
        folder.mkdir(parents=True, exist_ok=True)
    chosen = args.stages.split(",") if args.stages else list(STAGES)
    if unknown := [name for name in chosen if name not in STAGES]:
        raise SystemExit(f"there is no stage {unknown[0]!r}; choose from {', '.join(STAGES)}")
    results, started = Results(out / "results.json", tiny=args.tiny), time.monotonic()

    def stage(name: str) -> None:
        left = args.budget - (time.monotonic() - started)
        if left < STAGES[name].least and not args.tiny:
            results.put(name, status="left out", why=f"{left:.0f} s were left")
            return
        order = {"name": name, "work": str(work), "out": str(out), "tiny": args.tiny}
        order |= {"seconds": min(STAGES[name].most * (10 if args.tiny else 1), left) - 3}
        order |= {key: str(path.absolute()) for key in DATA if (path := getattr(args, key))}
        order["recipe"] = args.recipe
        print(f"{name}: at most {order['seconds']:.0f} s", flush=True)
        run(order, results, out / "log.txt")
        print(table({name: results.stages[name]}), flush=True)

    with ThreadPoolExecutor(os.cpu_count() if args.tiny else 1) as pool:  # side by side where no figure counts
        list(pool.map(stage, sorted(chosen, key=list(STAGES).index)))
    print(f"\n{table(results.stages)}")
    return int(any(results.stages[name]["status"] not in ("passed", "left out") for name in chosen))


class Results:
    """The findings so far, always on disk, beside those of earlier commands for other stages."""

    def __init__(self, file: Path, *, tiny: bool) -> None:
        self._file, self._lock = file, threading.Lock()
        self.stages: dict[str, Any] = json.loads(file.read_text())["stages"] if file.exists() else {}
        self._facts = {"tiny": tiny, "command": [re.sub("=.*/", "=", argument) for argument in sys.argv[1:]]}

    def put(self, name: str, **entry: Any) -> None:
        """Adds to what is known of a stage."""
        with self._lock:
            self.stages[name] = {"found": {"rows": []}} | self.stages.get(name, {}) | entry
            temporary = self._file.with_name(f".{self._file.name}")
            temporary.write_text(json.dumps(self._facts | {"stages": self.stages}, indent=1) + "\n")
            temporary.replace(self._file)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for what comes back")
    work = Path(tempfile.gettempdir(), "fmd-accelerator")
    parser.add_argument("--work", type=Path, default=work, help="folder for caches and runs; kept for later commands")
    parser.add_argument("--stages", help=f"some of {','.join(STAGES)}")
    parser.add_argument("--budget", type=float, default=3600, help="seconds in all; what no longer fits is left out")
    parser.add_argument("--mnist", type=Path, help="folder with MNIST's four IDX files")
    parser.add_argument("--fashion_mnist", type=Path, help="folder with Fashion-MNIST's four IDX files")
    parser.add_argument("--cifar10", type=Path, help="archive with train/CLASS/*.jpg and test/CLASS/*.jpg")
    parser.add_argument("--recipe", nargs="*", default=[], metavar="KEY=VALUE", help="changes of what `digits` trains")
    parser.add_argument("--tiny", action="store_true", help="the rehearsal, with data of its own")
    return parser.parse_args()


def run(order: dict[str, Any], results: Results, log: Path) -> None:
    """Runs one stage to its end or that of its time, and takes over what it finds meanwhile."""
    name = order["name"]
    found = Path(order["work"], f"{name}.json")
    found.unlink(missing_ok=True)
    results.put(name, status="running", found={"rows": []})
    started, seen = time.monotonic(), 0
    with open(log, "a") as lines:
        lines.write(f"\n=== {name}\n")
        lines.flush()
        process = subprocess.Popen(
            [sys.executable, str(HERE / f"{name}.py"), json.dumps(order)],
            stdout=lines, stderr=subprocess.STDOUT, env=environment(order), start_new_session=True, cwd=ROOT,
        )  # fmt: skip
        while process.poll() is None and time.monotonic() - started < order["seconds"] + 3:
            time.sleep(0.5)
            if found.exists() and found.stat().st_mtime_ns != seen:
                seen = found.stat().st_mtime_ns
                results.put(name, found=json.loads(found.read_text()))
        status = "ran over" if process.poll() is None else "failed" if process.returncode else "passed"
        end_session(process)
    if found.exists():
        results.put(name, found=json.loads(found.read_text()))
    if status != "passed":
        results.put(name, why=log.read_text(errors="replace").splitlines()[-12:])
    results.put(name, status=status, seconds=round(time.monotonic() - started, 1))


def environment(order: dict[str, Any]) -> dict[str, str]:
    """The environment of every process of a stage."""
    work = Path(order["work"])
    paths = [str(ROOT), str(HERE), str(HERE.parent / "benchmarks"), os.environ.get("PYTHONPATH", "")]
    told = {"PYTHONPATH": os.pathsep.join(filter(None, paths)), "PYTHONUNBUFFERED": "1"}
    told |= {"FMD_DATA_DIR": str(work / "data"), "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    told |= {"JAX_COMPILATION_CACHE_DIR": str(work / "xla"), "TORCHINDUCTOR_CACHE_DIR": str(work / "inductor")}
    if order["tiny"] and not shutil.which("nvidia-smi"):  # programs of a GPU are not made without optimisations
        told |= {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1", "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    return os.environ | told


def end_session(process: subprocess.Popen) -> None:
    """Ends a stage and whatever it started, in process groups of their own, too."""
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, ValueError):  # it has ended meanwhile
            after_name = entry.read_text().rpartition(")")[2].split()
            if int(after_name[3]) == process.pid:
                os.kill(int(entry.parent.name), signal.SIGKILL)
    process.wait()


def table(stages: dict[str, Any]) -> str:
    """All lines of all stages: what, how much, the target and whether it is met."""
    rows = []
    for name, entry in stages.items():
        rows.append((name.upper(), entry["status"] + (f", {entry['seconds']} s" if "seconds" in entry else ""), "", ""))
        if isinstance(entry.get("why"), str):
            rows.append(("", entry["why"], "", ""))
        for row in entry["found"]["rows"]:
            verdict = {True: "met", False: "MISSED", None: ""}[row["met"]]
            rows.append((f"  {row['what']}", row["value"], row["target"], verdict))
    widths = [max(len(row[i]) for row in rows) for i in range(3)]
    return "\n".join("  ".join([*(row[i].ljust(widths[i]) for i in range(3)), row[3]]).rstrip() for row in rows)


if __name__ == "__main__":
    sys.exit(main())
