"""The notebooks: clean files with a working link, and every code cell runs, on settings too small to learn anything."""

import json
import re
import runpy
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from PIL import Image

from experiments.notebooks import outputs
from experiments.notebooks.timing import program
from tests.helpers import toys

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "experiments" / "notebooks").glob("*.ipynb"))
REPOSITORY = "flow-matching-designs/fmd"
LINK = f"https://colab.research.google.com/github/{REPOSITORY}/blob/main/experiments/notebooks/"

every = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def cells(path, kind):
    """The text of the cells of a kind, "code" or "markdown"."""
    return ["".join(cell["source"]) for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == kind]


def test_they_are_a_course():
    assert [path.stem[:2] for path in NOTEBOOKS] == ["01", "02", "03", "04", "05", "06", "07"]
    titles = [cells(path, "markdown")[0].splitlines()[0].removeprefix("# ") for path in NOTEBOOKS]
    links = [f"[{title}]({path.name})" for title, path in zip(titles, NOTEBOOKS, strict=True)]
    for i, path in enumerate(NOTEBOOKS):
        last = cells(path, "markdown")[0].splitlines()[-1]
        before = [f"Before: {links[i - 1]}."] if i else []
        after = [f"Next: {links[i + 1]}."] if i < len(links) - 1 else ["The last one."]
        assert last == " ".join([f"Notebook {i + 1} of 7.", *before, *after])


@every
def test_it_holds_no_outputs_and_is_a_notebook(path):
    notebook = json.loads(path.read_text())
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    identities = [cell["id"] for cell in notebook["cells"]]
    assert len(set(identities)) == len(identities)
    for cell in notebook["cells"]:
        assert all(line.endswith("\n") for line in cell["source"][:-1])
        assert cell["metadata"] == {}
        if cell["cell_type"] == "code":
            assert (cell["outputs"], cell["execution_count"]) == ([], None)
        else:
            assert cell.keys() == {"cell_type", "id", "metadata", "source"}
    assert path.stat().st_size < 30_000


@every
def test_it_opens_in_colab_and_installs_itself_there(path):
    title = cells(path, "markdown")[0]
    assert title.startswith("# ")
    assert re.findall(r"\]\((https://colab[^)]*\.ipynb)\)", title) == [LINK + path.name]
    install, settings = cells(path, "code")[:2]
    assert f'REPOSITORY = "{REPOSITORY}"' in install
    assert 'find_spec("fmd") is None' in install
    assert "[notebooks] @ git+https://github.com/{REPOSITORY}" in install
    assert 'os.environ.get("FMD_NOTEBOOK_STEPS"' in settings


@every
def test_its_configs_and_commands_exist(path):
    for config in re.findall(r"configs/\w+\.py", "".join(cells(path, "markdown"))):
        assert (ROOT / config).exists(), config


def test_what_cells_show_is_kept_and_stands_in_the_site(tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    sources = {
        "plot": "import matplotlib.pyplot as plt\nlines = plt.plot([1, 2])",
        "say": "import os\nx = 20\nprint(os.path.join(os.getcwd(), 'twice'))\n2 * x + 2",
        "picture": "from PIL import Image\nImage.new('L', (30, 20), 7)",
        "quiet": "y = x",
    }
    made = [{"cell_type": "code", "id": name, "source": [text]} for name, text in sources.items()]
    (tmp_path / "00_toy.ipynb").write_text(json.dumps({"cells": made}))
    outputs.run(tmp_path / "00_toy.ipynb", tmp_path / "outputs" / "00_toy")
    kept = {file.name: file for file in (tmp_path / "outputs" / "00_toy").iterdir()}
    assert sorted(kept) == ["picture_1.png", "plot_1.png", "say_0.txt"]
    assert kept["say_0.txt"].read_text() == "twice\n42\n"
    with Image.open(kept["picture_1.png"]) as picture:
        assert (picture.size, picture.convert("L").getpixel((0, 0))) == ((30, 20), 7)
    monkeypatch.syspath_prepend(ROOT / "experiments" / "site")
    page = runpy.run_path(str(ROOT / "experiments" / "site" / "build.py"))["notebook"](tmp_path / "00_toy.ipynb")
    after = [page.index(text) for text in (sources["say"], "```\ntwice\n42\n```", sources["picture"], "picture_1.png")]
    assert after == sorted(after)


@every
def test_what_is_kept_is_small_and_of_cells_that_are_there(path):
    kept = list(outputs.OUTPUTS.glob(f"{path.stem}/*"))
    identities = {cell["id"] for cell in json.loads(path.read_text())["cells"]}
    assert {file.name.rpartition("_")[0] for file in kept} <= identities
    assert sum(file.stat().st_size for file in kept) <= 300_000


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The results of all notebooks, run in one folder, two at a time, 01 before 05, which goes on with its run."""
    pytest.importorskip("matplotlib")
    folder = tmp_path_factory.mktemp("notebooks")
    environment = toys.environment(
        PYTHONPATH=str(ROOT),
        MPLBACKEND="Agg",
        FMD_NOTEBOOK_STEPS="20",
    )

    def run(paths):
        results = {}
        for path in paths:
            script = folder / f"{path.stem}.py"
            script.write_text(program(path))
            results[path] = subprocess.run(
                [sys.executable, script.name], cwd=folder, env=environment, capture_output=True, text=True, check=False
            )
        return results

    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(run, (NOTEBOOKS[0::2], NOTEBOOKS[1::2]))
    return first | second


@pytest.mark.slow
@every
def test_it_runs_from_top_to_bottom(finished, path):
    result = finished[path]
    assert result.returncode == 0, result.stderr[-3000:]
    assert not re.search(r"\bnan\b", result.stdout), result.stdout


@pytest.mark.slow
def test_the_export_goes_on_with_the_run_of_the_first(finished):
    """It says so: the second training finds nothing to do, and its bar begins where it ends."""
    assert "20/20 [00:00<?" in finished[NOTEBOOKS[4]].stderr, finished[NOTEBOOKS[4]].stderr[-2000:]
