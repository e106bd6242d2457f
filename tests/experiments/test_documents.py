"""README and the pages of the site: their Python runs, what they name exists, and the site builds."""

import ast
import importlib.util
import re
import runpy
import subprocess
import sys
from pathlib import Path

import jax
import pytest

import fmd
import fmd.main
from fmd import commands, config
from fmd.registry import import_modules
from tests.helpers import shell, toys

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
SITE = ROOT / "experiments" / "site"
BLOCK = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)
FILE = re.compile(r"(?<![\w/.~-])(?:fmd|configs|experiments|tests|\.github)/[\w./]*\w")
KEYS = {*config.DEFAULTS, *config.BLOCKS}
# Flags of other programs than fmd's: gcloud, srun, docker, and scripts of experiments.
OTHERS = {"worker", "command", "nodes", "ntasks", "gpus", "weights", "out", "seeds", "contestants"}
OTHERS |= {"dist", "every", "judge_from", "overrides", "xla_gpu_enable_latency_hiding_scheduler"}

PAGES = [README, *sorted((SITE / "pages").rglob("*.md"))]
REPORTS = sorted((ROOT / "experiments").glob("*/*.md"))
CONFIGS = sorted((ROOT / "configs").glob("*.py"))

pages = pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)


def test_the_readme_is_short_and_begins_with_its_two_commands():
    text = README.read_text()
    assert len(text.splitlines()) <= 150
    assert BLOCK.sub("", text).split("```\n")[1].splitlines() == [
        "pip install -e . && python -m fmd.main --config=configs/mnist_cfg_strong.py",
        "pip install -e '.[test]' && python -m pytest -n 2 --dist loadfile",
    ]


def test_the_python_of_the_readme_runs(tmp_path, monkeypatch):
    """Its own parts train a run; it samples from a model that ships."""
    blocks = BLOCK.findall(README.read_text())
    (sample,) = (block for block in blocks if "fmd.load(" in block)
    (tmp_path / "readme_parts.py").write_text("\n".join(block for block in blocks if block is not sample))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    settings = toys.config(
        imports=["tests.helpers.toys", "readme_parts"], data={"source": "digits"}, model={"name": "two_layers"},
        method={"name": "late"}, sample={"guidance": {"name": "growing", "weight": 2.0}, "steps": 2},
        train={"num_steps": 4}, log={"samples_every": 0, "eval_every": 0, "every": 4}, parallel={"mode": "jit"},
    )  # fmt: skip
    assert commands.train_config(settings, tmp_path / "run").finished
    assert fmd.load("run")([0, 1], jax.random.key(0)).shape == (2, 8, 8, 1)
    (tmp_path / "sample.py").write_text(sample)
    made = runpy.run_path("sample.py")
    assert made["images"].shape == (5, 28, 28, 1)
    assert (tmp_path / "digits.png").exists()


def test_the_python_of_the_start_page_runs(tmp_path, monkeypatch):
    """The config that it trains is a tiny one here; the model that it draws from is the one that ships."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").mkdir()
    tiny = {"train": {"num_steps": 4}, "parallel": {"mode": "jit"}, "sample": {"steps": 1}}
    toys.write_config(tmp_path / "configs", **tiny).rename(tmp_path / "configs" / "digits.py")
    made = {}
    for block in BLOCK.findall((SITE / "pages" / "index.md").read_text()):
        exec(compile(block, "index.md", "exec"), made)
    assert made["images"].shape == (5, 28, 28, 1)
    assert made["run"].finished


@pytest.mark.parametrize("name", ["mathematics.md"])
def test_the_python_of_a_page_runs(name):
    for block in BLOCK.findall((SITE / "pages" / name).read_text()):
        exec(compile(block, name, "exec"), {})


@pages
def test_files_and_links_exist(path):
    text = path.read_text()
    assert [name for name in FILE.findall(text) if not (ROOT / name).exists()] == []
    if path == README:
        links = re.findall(r"\]\((?!http)([^)#]+)\)", text)
        assert [link for link in links if not (ROOT / link).exists()] == []


@pages
def test_flags_and_keys_exist(path):
    text = path.read_text()
    flags = set(re.findall(r"(?<!\S)[`\"]?--([a-z_]+)", text)) - OTHERS - {"config"}
    assert sorted(flags - set(fmd.main.FLAGS)) == []
    keys = re.findall(r"--config\.([a-z][\w.]*[a-z0-9])", text)
    assert [key for key in keys if not any(key.startswith((known + ".", known + "=")) or key == known
                                           for known in KEYS | {"data.params", "first", "on_cpu"})] == []  # fmt: skip


@pytest.mark.parametrize("path", [*PAGES, *REPORTS, *CONFIGS], ids=lambda path: f"{path.parent.name}/{path.name}")
def test_commands_would_be_taken(path, monkeypatch):
    """By the parser of flags, the check of configs, and the parts that they name; nothing is run."""
    text = path.read_text()
    if path.suffix == ".py":
        text = ast.get_docstring(ast.parse(text), clean=False)
    if path.parent.name == "extending":
        import_modules(f"tests.extending.{part.stem}" for part in (ROOT / "tests" / "extending").glob("my_*.py"))
    monkeypatch.chdir(ROOT)
    for words in shell.commands_in(BLOCK.sub("", text)):
        shell.check(words)


@pytest.mark.slow
def test_the_site_builds_and_needs_no_network(tmp_path):
    lacking = [name for name in ("mkdocs", "material", "latex2mathml") if importlib.util.find_spec(name) is None]
    if lacking:
        pytest.skip(f"{lacking[0]} is not installed: pip install -e '.[site]'")
    subprocess.run([sys.executable, SITE / "build.py", f"--out={tmp_path / 'site'}"], check=True, timeout=300)
    html = "".join(page.read_text() for page in (tmp_path / "site").rglob("*.html"))
    assert re.findall(r'<(?:script|img|link)[^>]*(?:src|href)="https?://[^"]*"', html) == []
    assert "<math" in html
    assert (tmp_path / "site" / "llms.txt").read_text().startswith("# fmd\n")
    assert "@register_model" in (tmp_path / "site" / "extending" / "model.md").read_text()  # a file of tests/extending
