"""Packages that only some parts of fmd need: each belongs to an extra of pyproject.toml."""

import importlib
from typing import Any


def need(package: str, extra: str, otherwise: str = "") -> Any:
    """The imported package or module.

    Raises ValueError where it cannot be imported, in one line that names the extra with it, and ends with `otherwise`
    for who can do without.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise ValueError(
            f"{package} cannot be imported ({error}); install it with pip install "
            f"'flow-matching-designs[{extra}]'{otherwise}"
        ) from None
