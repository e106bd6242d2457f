"""Shell commands of documents: found, split into words, and checked without being run."""

import copy
import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path
from string import Template

import fmd.main
from fmd import arguments, cli, config, methods
from fmd.data import sources
from fmd.math import couplings, grids, guidance, operators, schedules, times
from fmd.models import registry as models

ROOT = Path(__file__).parents[2]
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
SHELL = re.compile(r"^```\n(.*?)^```|((?:^ {4}[^\n]*\n)+)", re.DOTALL | re.MULTILINE)
INLINE = re.compile(r"(?<!`)`((?:python|pip) [^`]+)`")
PARTS = {
    "model": models.MODELS,
    "method": methods.METHODS,
    "path.schedule": schedules.SCHEDULES,
    "path.times": times.SAMPLERS,
    "path.coupling": couplings.COUPLINGS,
    "sample.schedule": schedules.SCHEDULES,
    "sample.guidance": guidance.RULES,
    "sample.grid": grids.GRIDS,
}


def commands_in(text: str) -> Iterator[list[str]]:
    """The words of each command in blocks of shell and between backticks, with the variables that blocks set."""
    text = text.replace("\\\n", " ")
    lines = [line for parts in SHELL.findall(text) for line in "".join(parts).splitlines()]
    lines += [" ".join(code.split()) for code in INLINE.findall(SHELL.sub("", text))]
    variables: dict[str, str] = {}
    for line in lines:
        name, is_assigned, value = line.strip().partition("=")
        if is_assigned and re.fullmatch("[A-Z]+", name):
            variables[name] = Template(value.strip('"')).safe_substitute(variables)
        elif re.search(r"^\s*--|\bpython3? |pip install|\$[A-Z]", line):
            yield from split(Template(line).safe_substitute(variables))


def split(line: str) -> Iterator[list[str]]:
    """The words of each command of a line, of commands within quotes, too."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars="&;")
    lexer.whitespace_split, lexer.commenters = True, "#"
    words: list[str] = []
    for word in [*lexer, ";"]:
        if set(word) <= set("&;"):
            yield words
            words = []
        elif "fmd.main " in word:
            yield from split(word)
        else:
            words.append(word)


def check(words: list[str]) -> None:
    """Raises ValueError where a command would be refused, or names what does not exist."""
    if "fmd.main" in words:
        check_fmd(words[words.index("fmd.main") + 1 :])
    elif words[:1] and words[0].startswith("--config"):
        check_fmd(words)
    elif words[:2] == ["pip", "install"]:
        named = re.findall(r"\[([\w,]+)\]", " ".join(words))
        if unknown := set(",".join(named).split(",")) - {"", *EXTRAS}:
            raise ValueError(f"{words}: no extra {unknown}")
    elif script := next((word for word in words if re.match(r"experiments/.*\.py$", word)), None):
        takes = Path(script).read_text()
        if unknown := [word for word in words if word.startswith("--") and f'"{word.partition("=")[0]}"' not in takes]:
            raise ValueError(f"{script} takes no {unknown}")


def check_fmd(words: list[str]) -> None:
    """Raises ValueError where the command line of fmd would refuse these words."""
    given, overrides = cli.split_overrides(["fmd", *words])
    parsed = copy.deepcopy(fmd.main.FLAGS)
    for flag in parsed.flags_by_module_dict()["fmd.main"]:
        flag.unparse()
    if extra := parsed(given)[1:]:
        raise ValueError(f"{words}: {extra} is no flag")
    cli.check_flags(parsed, overrides)
    if parsed.mode not in ("train", "verify"):
        settings = arguments.settings_of(parsed, overrides, config.Settings())
        overrides = [pair for pair in overrides if pair[0].startswith("data.")]
        source = {"data": {"source": parsed.source}} if parsed.source else {}
        file = {"sample": config.as_plain(settings), **source}
    else:
        file = config.apply_on_cpu(config.load_file(parsed.config)) if parsed.config else {}
    check_parts(config.resolve(config.override(file, overrides)))
    if parsed.operator and not parsed.trust:
        operators.OPERATORS[parsed.operator.partition(":")[0]]


def check_parts(chosen: config.Config) -> None:
    """Raises ValueError for a part, or a parameter of one, that fmd does not have; `imports` may bring others."""
    parts = {where: (block.name, block.params) for where in PARTS if (block := chosen.at(where)) is not None}
    parts["data"] = (chosen.data.source, chosen.data.params)
    for where, (name, params) in parts.items():
        registry = PARTS.get(where, sources.SOURCES)
        if name not in registry and chosen.imports:
            continue
        known = {*registry.parameters(name), *config.SHARED.get(where, ())}
        if unknown := set(params) - known:
            raise ValueError(f"config.{where}: {name} has no {unknown}; it takes {known}")
