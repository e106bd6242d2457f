"""Builds the site of fmd: one folder of pages that needs no network, neither to be built nor to be read.

    pip install -e '.[site]'
    python experiments/site/build.py --out=site
    python -m http.server --directory=site          # or open site/index.html; only search needs a server

Pages lie in `pages/`. A line `--8<-- "PATH"` stands for a file of the repository, so that the code shown is the code
tested. Reports of experiments, scripts of the gallery, notebooks, docstrings, keys and flags become pages of their own.
`llms.txt` lists all pages, and each page lies beside its HTML as Markdown. A broken link, a page that no menu lists, or
a file of `tests/extending` that no page shows ends the build with an error.
"""

import argparse
import json
import re
import shutil
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(HERE))

import api  # noqa: E402
import gallery  # noqa: E402

EXPERIMENTS = ROOT / "experiments"
REPORTS = {  # pages that are reports of experiments, with the pictures that they show
    "reference.md": EXPERIMENTS / "reference" / "README.md",
    "image_to_image.md": EXPERIMENTS / "reference" / "conditions.md",
    "restoration.md": EXPERIMENTS / "reference" / "restoration.md",
    "reliability.md": EXPERIMENTS / "reliability" / "README.md",
    "speed_notes.md": EXPERIMENTS / "benchmarks" / "NOTES.md",
    "accelerator.md": EXPERIMENTS / "accelerator" / "README.md",
}
INCLUDED = re.compile(r'^--8<-- "([^"]+)"$', re.MULTILINE)
PICTURE = re.compile(r"!\[[^\]]*\]\(([^):]+)\)")


def main() -> None:
    parser = argparse.ArgumentParser(description="Builds the site of fmd into a folder, without a network.")
    parser.add_argument("--out", type=Path, default=Path("site"), help="folder to make anew (default: site)")
    out = parser.parse_args().out.resolve()
    if out.exists() and not (out / "llms.txt").exists():
        sys.exit(f"build.py: {out} exists and is no site; give another --out")
    with tempfile.TemporaryDirectory() as folder:
        docs = Path(folder) / "docs"
        notebooks = assemble(docs)
        build(docs, out, notebooks)
        for page in docs.rglob("*.md"):
            shutil.copy(page, out / page.relative_to(docs))
        (out / "llms.txt").write_text(overview(docs))
    print(f"site: {len(list(out.rglob('*.html')))} pages in {out}")


def assemble(docs: Path) -> list[str]:
    """Writes all pages, pictures and notebooks into the folder `docs`; returns the names of the notebooks' pages."""
    shutil.copytree(HERE / "pages", docs)
    shutil.copy(HERE / "style.css", docs)
    shown = set()
    for page in docs.rglob("*.md"):
        shown |= {ROOT / name for name in INCLUDED.findall(page.read_text())}
        text = INCLUDED.sub(lambda match: (ROOT / match[1]).read_text().rstrip(), page.read_text())
        page.write_text(_with_pictures(text, EXPERIMENTS / "reference", docs))
    missing = sorted(set((ROOT / "tests" / "extending").glob("my_*.py")) - shown)
    if missing:
        sys.exit(f"build.py: no page shows {missing[0].name}; give it one in pages/extending, with a line --8<--")
    for name, report in REPORTS.items():
        (docs / name).write_text(_with_pictures(report.read_text(), report.parent, docs))
    (docs / "api").mkdir()
    for name, text in api.pages().items():
        (docs / name).write_text(text)
    gallery.write(docs)
    (docs / "notebooks").mkdir()
    paths = sorted((EXPERIMENTS / "notebooks").glob("*.ipynb"))
    for path in paths:
        shutil.copy(path, docs / "notebooks")
        (docs / "notebooks" / f"{path.stem}.md").write_text(notebook(path))
        if (kept := path.with_name("outputs") / path.stem).exists():
            shutil.copytree(kept, docs / "notebooks" / path.stem)
    return [f"notebooks/{path.stem}.md" for path in paths]


def _with_pictures(text: str, folder: Path, docs: Path) -> str:
    """The page; the pictures that it shows are copied from `folder` to the pages."""
    for name in PICTURE.findall(text):
        if not (docs / name).exists() and (folder / name).exists():
            shutil.copy(folder / name, docs / name)
    return text


def notebook(path: Path) -> str:
    """A notebook as Markdown: its text, its code, and what the cells showed when `notebooks/outputs.py` ran them."""
    parts = []
    for cell in json.loads(path.read_text())["cells"]:
        text = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            text = re.sub(r"\[!\[[^\]]*\]\([^)]*\)\]\(([^)]*)\)", rf"[Open in Colab](\1) · [file]({path.name})", text)
            parts.append(re.sub(r"^(\n*)- ", r"\n- ", text))
        else:
            parts.append(f"```python\n{text}\n```")
            for file in sorted(path.with_name("outputs").glob(f"{path.stem}/{cell['id']}_*")):
                picture = f"![What this cell shows]({path.stem}/{file.name})"
                parts.append(f"```\n{file.read_text().rstrip()}\n```" if file.suffix == ".txt" else picture)
    return "\n\n".join(parts) + "\n"


def build(docs: Path, out: Path, notebooks: list[str]) -> None:
    """Makes the pages HTML, with the menu of mkdocs.yml and the API and notebooks below it; any doubt is an error."""
    try:
        from mkdocs.commands.build import build as make
        from mkdocs.config import load_config
        from mkdocs.exceptions import Abort, ConfigurationError
    except ImportError:
        sys.exit("build.py: mkdocs is not installed; pip install -e '.[site]'")
    import logging

    logging.basicConfig(format="%(levelname)s %(message)s", level=logging.WARNING)
    config = load_config(str(HERE / "mkdocs.yml"), docs_dir=str(docs), site_dir=str(out), strict=True)
    rooms = [f"api/{room}.md" for room in api.ROOMS]
    config.nav += [{"Notebooks": notebooks}, {"API": ["api/configuration.md", *rooms, "api/ground.md"]}]
    try:
        make(config)
    except (Abort, ConfigurationError) as error:
        sys.exit(f"build.py: {error}")


def overview(docs: Path) -> str:
    """The text of llms.txt: what fmd is, and each page with its first sentence."""
    lines = ["# fmd", "", "> Flow matching for images in JAX: train, sample, judge and export image generators.", ""]
    for page in sorted(docs.rglob("*.md"), key=lambda path: (path.parent != docs, path)):
        title, _, body = page.read_text().lstrip().partition("\n")
        body = re.sub(r"^```.*?^```$|^    .*$|<[^>]+>", "", body, flags=re.DOTALL | re.MULTILINE)
        paragraphs = (" ".join(part.split()) for part in re.split(r"\n\s*\n", body))
        first = next((part for part in paragraphs if part and not re.match(r"[#|!-]|\[Open", part)), "")
        sentence = re.split(r"(?<=\.) (?=[A-Z])", first)[0]
        lines.append(f"- [{title.strip('# ')}]({page.relative_to(docs)}): {sentence}")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
