"""The folder of a model by what a user calls it: a path, or the name of a model that ships with fmd.

A model that ships is an export inside the package, fmd/shipped/NAME. Nothing is ever written into it.
"""

import os
from pathlib import Path

from fmd.files import expand
from fmd.run_info import FILE

SHIPPED = Path(__file__).parents[1] / "shipped"


def shipped() -> list[str]:
    """The names of the models that ship with fmd."""
    return sorted(folder.name for folder in SHIPPED.glob("*") if (folder / FILE).is_file())


def locate(name: str | os.PathLike[str]) -> Path:
    """The folder of a model, absolute; it need not exist.

    Args:
        name: a path, or the name of a model that ships with fmd. A folder of that name that holds a model comes first,
            as every path does; other folders, of data say, do not count.
    """
    path = expand(name).absolute()
    return SHIPPED / path.name if os.fspath(name) in shipped() and not (path / FILE).is_file() else path


def results_folder(name: str | os.PathLike[str]) -> Path:
    """The folder for what is found out about a model: its own, or `eval_NAME` here for one that ships with fmd."""
    path = locate(name)
    return Path(f"eval_{path.name}") if path.parent == SHIPPED else path
