"""Pages made of fmd's sources without importing them: docstrings and signatures, config keys, flags."""

import ast
import html
import itertools
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("math", "methods", "models", "data", "training", "sampling", "evaluation", "export", "checkpoints", "pictures")
PAPER = re.compile(r"\b(\d{4}\.\d{5})\b")
Documented = ast.FunctionDef | ast.ClassDef


def pages() -> dict[str, str]:
    """Markdown of the pages of the API by file name: one a room, one of the ground, one of keys and flags."""
    ground = [ROOT / "fmd" / "__init__.py", *sorted((ROOT / "fmd").glob("[a-z]*.py"))]
    made = {"api/configuration.md": configuration()}
    for room in ROOMS:
        files = sorted((ROOT / "fmd" / room).rglob("*.py"))
        made[f"api/{room}.md"] = f"# fmd.{room}\n\n" + "".join(map(module, files))
    made["api/ground.md"] = "# fmd: commands and ground\n\n" + "".join(map(module, ground))
    return made


def module(path: Path) -> str:
    """Markdown of a module: its docstring, then its public functions and classes."""
    tree = ast.parse(path.read_text())
    name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    public = [node for node in tree.body if isinstance(node, Documented) and not node.name.startswith("_")]
    if not ast.get_docstring(tree) and not public:
        return ""
    parts = [f"## {name}", prose(ast.get_docstring(tree))]
    for node in public:
        parts += [f"### {node.name} {{: #{name}.{node.name} }}", _code(signature(node)), prose(ast.get_docstring(node))]
        for method in node.body if isinstance(node, ast.ClassDef) else []:
            shown = isinstance(method, ast.FunctionDef) and not method.name.startswith("_")
            if shown and ast.get_docstring(method):
                parts += [_code(signature(method)), prose(ast.get_docstring(method))]
    return "\n\n".join(part for part in parts if part) + "\n\n"


def signature(node: Documented) -> str:
    """The lines of source that say how a function is called, or which fields a class has."""
    if isinstance(node, ast.FunctionDef):
        returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
        line = f"def {node.name}({ast.unparse(node.args)}){returns}"
        rows = "".join(f"    {argument},\n" for argument in _arguments(node.args))
        return line if len(line) <= 100 else f"def {node.name}(\n{rows}){returns}"
    bases = ", ".join(map(ast.unparse, node.bases))
    fields = [f"    {ast.unparse(field)}" for field in node.body if isinstance(field, ast.AnnAssign)]
    return "\n".join([f"class {node.name}" + (f"({bases})" if bases else ""), *fields])


def _arguments(args: ast.arguments) -> Iterator[str]:
    """Each argument as it stands in the source."""
    plain = [*args.posonlyargs, *args.args]
    defaults = [None] * (len(plain) - len(args.defaults)) + list(args.defaults)
    for arg, default in zip(plain, defaults, strict=True):
        yield ast.unparse(arg) + (f" = {ast.unparse(default)}" if default else "")
    if args.vararg or args.kwonlyargs:
        yield "*" + (ast.unparse(args.vararg) if args.vararg else "")
    for arg, default in zip(args.kwonlyargs, args.kw_defaults, strict=True):
        yield ast.unparse(arg) + (f" = {ast.unparse(default)}" if default else "")
    if args.kwarg:
        yield "**" + ast.unparse(args.kwarg)


def prose(docstring: str | None) -> str:
    """A docstring as HTML: paragraphs, and what is set in columns as it stands."""
    made = []
    for columns, blocks in itertools.groupby(re.split(r"\n\s*\n", docstring or ""), _in_columns):
        for block in [textwrap.dedent("\n\n".join(blocks))] if columns else blocks:
            text = PAPER.sub(r'<a href="https://arxiv.org/abs/\1">\1</a>', html.escape(block, quote=False))
            if columns:
                made.append(f'<pre class="text">{text}</pre>')
            else:
                made.append("<p>" + re.sub(r"`([^`]+)`", r"<code>\1</code>", " ".join(text.split())) + "</p>")
    return "\n\n".join(made) if docstring else ""


def _in_columns(block: str) -> bool:
    return any(line.startswith(" ") or re.search(r"\S {3,}\S", line) for line in block.splitlines())


def configuration() -> str:
    """The page of all keys of a config and all flags, with types, defaults and what they mean."""
    text = ["# All keys and flags", "A config sets keys, `--config.KEY=value` a key on the command line.", "## Keys"]
    source = (ROOT / "fmd" / "config.py").read_text()
    for node in ast.parse(source).body:
        if isinstance(node, ast.ClassDef):
            rows = list(_keys(node, source.splitlines()))
            text += ["| key | type | default | |\n|---|---|---|---|\n" + "\n".join(rows)] if rows else []
    text += ["## Flags", "| flag | default | |\n|---|---|---|\n" + "\n".join(_flags())]
    return "\n\n".join(text) + "\n"


def _keys(node: ast.ClassDef, lines: list[str]) -> Iterator[str]:
    where = ""
    for field in node.body:
        if isinstance(field, ast.Assign) and ast.unparse(field.targets[0]) == "WHERE":
            where = ast.literal_eval(field.value)
        block = isinstance(field, ast.AnnAssign) and "default_factory" in ast.unparse(field)
        if not isinstance(field, ast.AnnAssign) or (block and ast.unparse(field.annotation) != "dict"):
            continue
        comment = re.sub(r"^type: ignore\[[\w-]*\]\s*#?", "", lines[field.lineno - 1].partition("  # ")[2]).strip()
        default = "{}" if block else ast.unparse(field.value) if field.value else ""
        cells = [f"`{text}`" for text in (where + ast.unparse(field.target), ast.unparse(field.annotation), default)]
        yield "| " + " | ".join([*cells, comment.replace("|", "\\|").replace("{", "&#123;")]) + " |"


def _flags() -> Iterator[str]:
    for node in ast.walk(ast.parse((ROOT / "fmd" / "main.py").read_text())):
        if isinstance(node, ast.Call) and ast.unparse(node.func).startswith("flags.DEFINE_"):
            values = [ast.literal_eval(value) for value in node.args]
            yield f"| `--{values[0]}` | `{values[1]}` | {values[-1]} |".replace("<", "&lt;")


def _code(text: str) -> str:
    return f"```python\n{text}\n```"
