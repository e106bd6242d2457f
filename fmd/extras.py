"""Packages that only some parts of fmd need: each belongs to an extra of pyproject.toml."""

import importlib
from typing import Any


def need(package: str, extra: str, otherwise: str = "") -> Any:
    """The imported package or module.

    Args:
        package: its name.
        extra: what installs it.
        otherwise: the end of the message, for who can do without it.

    Raises:
        ValueError: where it cannot be imported, in one line that names the extra.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise ValueError(
            f"{package} cannot be imported ({error}); install it with pip install "
            f"'flow-matching-designs[{extra}]'{otherwise}"
        ) from None
