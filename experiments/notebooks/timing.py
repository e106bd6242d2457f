"""Times the notebooks: each by itself, from top to bottom, in a folder of its own with empty caches.

    python experiments/notebooks/timing.py              # all seven, one after the other
    python experiments/notebooks/timing.py 03 07        # or these

A line each: seconds on the clock, seconds of all processors together, and the peak of memory. On a machine that does
other work the clock says little; processor seconds are then what one quiet core would take, and two take less.
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent


def main() -> None:
    numbers = sys.argv[1:]
    for path in sorted(HERE.glob("*.ipynb")):
        if numbers and path.stem[:2] not in numbers:
            continue
        with tempfile.TemporaryDirectory() as folder:
            print(f"{path.stem}: {measured(path, Path(folder))}", flush=True)


def program(path: Path) -> str:
    """All code cells of a notebook as one program, without the lines that only a notebook understands."""
    cells = json.loads(path.read_text())["cells"]
    text = "\n\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    return "\n".join(line for line in text.splitlines() if not line.lstrip().startswith(("%", "!")))


def measured(path: Path, folder: Path) -> str:
    """Time and memory of a notebook, run in an empty folder; its errors end the program."""
    (folder / "notebook.py").write_text(program(path))
    environment = os.environ | {
        "PYTHONPATH": str(HERE.parents[1]),
        "MPLBACKEND": "Agg",
        "XDG_CACHE_HOME": str(folder / "cache"),
    }
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run([sys.executable, "notebook.py"], cwd=folder, env=environment, capture_output=True, check=True)
    used, seconds = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter() - start
    processors = used.ru_utime + used.ru_stime - before.ru_utime - before.ru_stime
    return f"{seconds:.0f} s, {processors:.0f} processor seconds, at most {used.ru_maxrss / 1e6:.1f} GB"


if __name__ == "__main__":
    main()
