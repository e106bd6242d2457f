"""Runs the notebooks and keeps what their cells show; the site puts it below the cells.

    python experiments/notebooks/outputs.py              # all seven, one after the other: about 12 minutes
    python experiments/notebooks/outputs.py 03 07        # or these

`outputs/NOTEBOOK/` has files named by the cell: ID_0.txt for what it prints, then ID_1.png or ID_1.webp. The notebooks
themselves stay without outputs.
"""

import ast
import contextlib
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
import types
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
OUTPUTS = HERE / "outputs"


def main() -> None:
    if sys.argv[1:2] == ["--run"]:  # in a process and a folder of its own
        return run(Path(sys.argv[2]), Path(sys.argv[3]))
    for path in sorted(HERE.glob("*.ipynb")):
        if sys.argv[1:] and path.stem[:2] not in sys.argv[1:]:
            continue
        shutil.rmtree(OUTPUTS / path.stem, ignore_errors=True)
        environment = os.environ | {"PYTHONPATH": str(HERE.parents[1]), "MPLBACKEND": "Agg"}
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, __file__, "--run", str(path), str(OUTPUTS / path.stem)]
            subprocess.run(command, cwd=folder, env=environment, check=True)
        print(f"{path.stem}: {sum(file.stat().st_size for file in (OUTPUTS / path.stem).iterdir()) / 1000:.0f} kB")


def run(path: Path, out: Path) -> None:
    """Runs the code cells of a notebook in the current folder, and writes what each of them shows into `out`."""
    out.mkdir(parents=True, exist_ok=True)
    module = sys.modules["notebook"] = types.ModuleType("notebook")
    for cell in json.loads(path.read_text())["cells"]:
        if cell["cell_type"] == "code":
            printed, shown = run_cell("".join(cell["source"]), vars(module))
            if printed.strip():  # without the name of the temporary folder
                (out / f"{cell['id']}_0.txt").write_text(printed.rstrip().replace(f"{Path.cwd()}/", "") + "\n")
            for number, picture in enumerate(shown, 1):
                keep(picture, out / f"{cell['id']}_{number}")


def run_cell(text: str, names: dict[str, Any]) -> tuple[str, list[Any]]:
    """(what a cell prints, the pictures that it shows): a figure, and its last expression as a notebook shows it."""
    tree, printed, shown = ast.parse(text), io.StringIO(), []
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    with contextlib.redirect_stdout(printed):
        exec(compile(tree, "cell", "exec"), names)
        value = None if last is None else eval(compile(ast.Expression(last.value), "cell", "eval"), names)
    if hasattr(value, "save") or hasattr(value, "path"):  # of Pillow, fmd.pictures.animation.Shown
        shown.append(value)
    elif value is not None:
        printed.write(repr(value))
    if pyplot := sys.modules.get("matplotlib.pyplot"):
        shown += map(pyplot.figure, pyplot.get_fignums())
        pyplot.close("all")
    return printed.getvalue(), shown


def keep(picture: Any, path: Path) -> None:
    """Writes a picture, a figure or an animation; pictures in at most 64 colours, every second frame of animations."""
    from PIL import Image, ImageSequence

    if hasattr(picture, "path"):  # fmd.pictures.animation.Shown
        first, *rest = [frame.convert("RGB") for frame in ImageSequence.Iterator(Image.open(picture.path))][::2]
        first.save(path.with_suffix(".webp"), save_all=True, append_images=rest, loop=0, duration=100, quality=20)
        return
    if not isinstance(picture, Image.Image):
        made = io.BytesIO()
        picture.savefig(made, dpi=72)
        picture = Image.open(made)
    picture.convert("RGB").quantize(64, dither=Image.Dither.NONE).save(path.with_suffix(".png"), optimize=True)


if __name__ == "__main__":
    main()
