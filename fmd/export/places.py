"""Text without the folders of the machine that trained: an exported folder goes to strangers."""

import re
from collections.abc import Mapping
from pathlib import PurePath
from typing import TypeVar

T = TypeVar("T")

PATH = re.compile(r"(file:)?/|~|\.{1,2}/")  # how a path begins that tells of a machine
RELATIVE = re.compile(r"[^\s:]+/[^\s:]*(?<!/\d\.\d\.\d)$")  # another word that is one, and no name of a TFDS set
NAMES = ("name", "freeze", "targets", "train")  # keys of names and patterns, in which slashes are no folders
ASIDE = re.compile(r" \((kept in|not kept).*")  # where a download lies in the cache


def without_folders(value: T, key: str = "") -> T:
    """The value with the last name of each path in place of the path, inside blocks and lists, too.

    What lies under a key of `NAMES` is a path only if it begins as one.
    """
    found: object = value
    if isinstance(value, Mapping):
        found = {name: without_folders(item, name) for name, item in value.items()}
    elif isinstance(value, list | tuple):
        found = type(value)(without_folders(item, key) for item in value)
    elif isinstance(value, str) and (PATH.match(value) or (key not in NAMES and "://" not in value and "/" in value)):
        found = value if " / " in value else PurePath(value).name
    return found  # type: ignore[return-value]


def origin(provenance: str) -> str:
    """The provenance of a data set, without the folders of the machine that trained."""
    words: list[str] = []
    start = None  # the place of the last path; it may go on after spaces
    for word in ASIDE.sub("", provenance).split(" "):
        goes_on = start is not None and "/" in word and "://" not in word
        first = start is None or " ".join(words).endswith(".npz and")
        if PATH.match(word) or (first and RELATIVE.match(word)):
            start, goes_on = len(words), True
        elif goes_on:
            del words[start:]
        words.append(PurePath(word).name if goes_on else word)
    return " ".join(words)
