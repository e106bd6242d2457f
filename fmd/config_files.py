"""Configs as plain dictionaries: read from a file, laid over one another, changed from the command line.

What may stand in them is the business of `fmd.config`.
"""

import ast
import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict


def load_file(path: str | Path) -> dict[str, Any]:
    """Runs `get_config()` of a config file.

    Raises:
        ValueError: when the file is missing or has no such function.
    """
    path = Path(path)
    if not path.is_file():
        near = [str(p) for p in sorted(path.parent.glob("*.py"))] if path.parent.is_dir() else []
        raise ValueError(f"no config file {path}; there are: {', '.join(near) or 'none in that folder'}")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise ValueError(f"{path} is not a Python file; a config is a .py file with a get_config() function")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        config = plain(module.get_config())
    except Exception as error:  # whatever a user's file raises
        raise ValueError(f"{path} cannot be used as a config: {type(error).__name__}: {error}") from error
    if not isinstance(config, dict):
        raise ValueError(f"get_config() of {path} returned {config!r}; it must return an ml_collections.ConfigDict")
    return config


def apply_on_cpu(config: dict[str, Any]) -> dict[str, Any]:
    """The config with its `on_cpu` block laid over it."""
    block = config.get("on_cpu") or {}
    if not isinstance(block, dict):
        raise ValueError(f"config.on_cpu = {block!r}; it must be a block of overrides, or None")
    return {**merge(config, block), "on_cpu": config.get("on_cpu")}


def override(config: dict[str, Any], assignments: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """Applies ("a.b", "value") pairs from the command line; a value that is no Python literal is a string.

    What chooses a part (`name`, `source`) comes first and drops the parameters of the part before it, wherever it
    stands on the line.
    """
    for key, text in sorted(assignments, key=lambda pair: not _chooses(pair[0])):
        config = _assign(config, key.split("."), _literal(text), chooses=_chooses(key))
    return config


def _chooses(key: str) -> bool:
    return key.endswith((".name", ".source")) and key != "data.params.name"


def _assign(config: dict[str, Any], path: Sequence[str], value: Any, *, chooses: bool) -> dict[str, Any]:
    head, *rest = path
    old = config.get(head)
    if rest:
        value = _assign(old if isinstance(old, dict) else {}, rest, value, chooses=chooses)
    elif chooses and old != value:
        return {"name": value} if head == "name" else {**config, head: value, "params": {}}
    return {**config, head: value}


def _literal(text: str) -> Any:
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def merge(base: dict[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`over` laid on `base`, block by block. A part that changes its name drops the old one's parameters."""
    if "name" in over and "name" in base and over["name"] != base["name"]:
        return dict(over)
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        merged[key] = merge(old, value) if isinstance(value, dict) and isinstance(old, dict) else value
    return merged


def plain(value: Any) -> Any:
    """ConfigDicts and tuples as plain dictionaries and lists, which is also what JSON gives back."""
    if isinstance(value, ConfigDict):
        value = value.to_dict()
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value
