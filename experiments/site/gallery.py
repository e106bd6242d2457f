"""Pages of the gallery, made of its scripts without running them: an overview of thumbnails, and one page a script."""

import ast
import html
import shutil
import sys
from pathlib import Path

import api

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from experiments.gallery import SECTIONS  # noqa: E402

FOLDER = ROOT / "experiments" / "gallery"
SHARED = ("plane", "style")


def write(docs: Path) -> None:
    """Writes gallery.md and gallery/NAME.md into `docs`, beside the pictures."""
    (docs / "gallery").mkdir()
    overview = ["# Gallery", "Small scripts, each one idea and one picture.", f"```\n{COMMAND}\n```"]
    for section, names in SECTIONS.items():
        overview.append(f"## {section}")
        overview.append('<div class="gallery">\n' + "\n".join(thumbnail(name) for name in names) + "\n</div>")
        for name in names:
            if not (picture := FOLDER / "pictures" / f"{name}.png").exists():
                sys.exit(f"build.py: the gallery lacks the picture of {name}; python -m experiments.gallery {name}")
            shutil.copy(picture, docs / "gallery")
            (docs / "gallery" / f"{name}.md").write_text(page(name))
    overview.append("## What they share")
    overview += [f"```python\n{source(name)}\n```" for name in SHARED]
    (docs / "gallery.md").write_text("\n\n".join(overview) + "\n")


COMMAND = """python -m experiments.gallery                      # draws all
python -m experiments.gallery solvers guidance     # or these"""


def source(name: str) -> str:
    """The text of a script."""
    return (FOLDER / f"{name}.py").read_text().rstrip()


def told(name: str) -> tuple[str, str]:
    """(title without its point, the rest of the docstring)."""
    title, _, text = (ast.get_docstring(ast.parse(source(name))) or "").partition("\n")
    return title.rstrip("."), text.strip()


def thumbnail(name: str) -> str:
    """A picture with its title, that leads to its page."""
    title = html.escape(told(name)[0])
    return f'<a href="gallery/{name}.html"><img src="gallery/{name}.png" alt="" loading="lazy"><span>{title}</span></a>'


def page(name: str) -> str:
    """Markdown of a script's page: picture, text, code."""
    title, text = told(name)
    code = source(name).partition('"""\n\n')[2]
    picture = f'<img class="wide" src="{name}.png" alt="{html.escape(title)}">'
    run = f"`python -m experiments.gallery {name}` draws it. [All pictures](../gallery.md)"
    return "\n\n".join([f"# {title}", picture, api.prose(text), f"```python\n{code}\n```", run]) + "\n"
