"""Draws pictures of the gallery: python -m experiments.gallery [NAME ...]."""

import argparse
import importlib
import time
from pathlib import Path
from typing import Any

import matplotlib
from PIL import Image

from experiments.gallery import SECTIONS, style

PICTURES = Path(__file__).parent / "pictures"
NAMES = [name for names in SECTIONS.values() for name in names]


def main() -> None:
    parser = argparse.ArgumentParser(description="Draws pictures of the gallery.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"default: all of {', '.join(NAMES)}")
    parser.add_argument("--out", type=Path, default=PICTURES, help="folder of the pictures")
    parser.add_argument("--small", action="store_true", help="tiny settings, as the tests draw")
    arguments = parser.parse_args()
    if strange := [name for name in arguments.names if name not in NAMES]:
        parser.error(f"no script is called {strange[0]!r}; there are {', '.join(NAMES)}")
    arguments.out.mkdir(parents=True, exist_ok=True)
    for name in arguments.names or NAMES:
        start, path = time.perf_counter(), arguments.out / f"{name}.png"
        render(name, arguments.small).save(path, optimize=True)
        print(f"{path}: {path.stat().st_size / 1000:.0f} kB, {time.perf_counter() - start:.1f} s", flush=True)


def render(name: str, small: bool = False) -> Image.Image:
    """The picture of a script, in a palette of few colours."""
    script: Any = importlib.import_module(f"experiments.gallery.{name}")
    with matplotlib.rc_context(style.LOOK):
        return style.picture(script.draw(small))


if __name__ == "__main__":
    main()
