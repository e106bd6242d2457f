"""What a run or an export says about itself, as JSON beside its weights: config, image shape, classes, averages."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fmd.utils.files import write_json

FACTS = "config.json"
FORMAT = 1


def write_facts(folder: Path, facts: Mapping[str, Any]) -> None:
    """Writes the config and facts of a run (or of an export) as JSON beside its weights."""
    write_json(Path(folder) / FACTS, {"format": FORMAT, **facts})


def read_facts(folder: Path) -> dict[str, Any]:
    """Reads what `write_facts` wrote.

    Raises:
        ValueError: when the file is missing, unreadable, or of a newer format.
    """
    path = Path(folder) / FACTS
    if not path.is_file():
        raise ValueError(
            f"{folder} holds no fmd model: there is no {FACTS} in it; give a workdir or an exported folder"
        )
    try:
        facts = json.loads(path.read_text())
        version = facts["format"]
    except (json.JSONDecodeError, KeyError, TypeError, UnicodeDecodeError):
        raise ValueError(f"{path} is damaged or was not written by fmd; restore it from a copy") from None
    if version != FORMAT:
        raise ValueError(f"{path} has format {version}; this fmd reads format {FORMAT}: install a version that fits")
    return facts
