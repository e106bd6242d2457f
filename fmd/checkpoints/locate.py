"""The folder of a model by what a user calls it: a path, the name of a model that ships with fmd, or one on the Hub.

A model that ships is an export inside the package, fmd/shipped/NAME. Nothing is ever written into it,
nor into the cache of the Hub.
"""

import os
from pathlib import Path

from fmd.checkpoints import hub
from fmd.files import expand
from fmd.run_info import FILE

SHIPPED = Path(__file__).parents[1] / "shipped"


def shipped() -> list[str]:
    """The names of the models that ship with fmd."""
    return sorted(folder.name for folder in SHIPPED.glob("*") if (folder / FILE).is_file())


def locate(name: str | os.PathLike[str]) -> Path:
    """The folder of a model, absolute; it need not exist.

    Args:
        name: a path, the name of a model that ships with fmd, or hf://owner/name[@revision], which is fetched. A
            folder by the name of a shipped model comes before it if it holds a model; others, of data say, do not.

    Raises:
        ValueError, OSError: where a model on the Hub cannot be had, see `fmd.checkpoints.hub`.
    """
    if os.fspath(name).startswith(hub.PREFIX):
        return hub.fetch(os.fspath(name))
    path = expand(name).absolute()
    return SHIPPED / path.name if os.fspath(name) in shipped() and not (path / FILE).is_file() else path


def existing(name: str | os.PathLike[str]) -> Path:
    """As `locate`, of a model that is there. ValueError where there is no such folder."""
    path = locate(name)
    if not path.is_dir():
        raise ValueError(
            f"no checkpoint at {path}; give a workdir, one step inside it, an exported folder, or the name of a model "
            f"that ships with fmd: {', '.join(shipped())}"
        )
    return path


def results_folder(name: str | os.PathLike[str]) -> Path:
    """The folder for what is found out about a model: its own; `eval_NAME` here for one that ships or is on the Hub."""
    if os.fspath(name).startswith(hub.PREFIX):
        return Path(f"eval_{hub.parse(os.fspath(name))[0].rpartition('/')[2]}")
    path = locate(name)
    return Path(f"eval_{path.name}") if path.parent == SHIPPED else path
