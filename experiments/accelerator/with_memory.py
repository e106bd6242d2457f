"""fmd's command line, and how much memory of the device it took at most, as JSON in a file.

python with_memory.py FILE --mode=eval --checkpoint=runs/mnist
"""

import json
import runpy
import sys
from pathlib import Path


def main() -> None:
    file = Path(sys.argv[1])
    sys.argv = [sys.argv[0], *sys.argv[2:]]
    try:
        runpy.run_module("fmd.main", run_name="__main__")
    finally:
        if "jax" in sys.modules:
            told = sys.modules["jax"].devices()[0].memory_stats() or {}
            file.write_text(json.dumps({"peak_device_bytes": told.get("peak_bytes_in_use")}) + "\n")


if __name__ == "__main__":
    main()
