"""Text without the folders of the machine that trained: an exported folder goes to strangers."""

import re
from collections.abc import Mapping
from pathlib import PurePath
from typing import TypeVar

T = TypeVar("T")

PATH = re.compile(r"(/|~|\.{1,2}/)")  # how a path begins that tells of a machine
ASIDE = re.compile(r" \((kept in|not kept).*")  # where a download lies in the cache


def without_folders(value: T) -> T:
    """The value with the last name of each path in place of the path, inside blocks and lists, too."""
    found: object = value
    if isinstance(value, Mapping):
        found = {key: without_folders(item) for key, item in value.items()}
    elif isinstance(value, list | tuple):
        found = type(value)(without_folders(item) for item in value)
    elif isinstance(value, str) and PATH.match(value):
        found = PurePath(value).name
    return found  # type: ignore[return-value]


def origin(provenance: str) -> str:
    """The provenance of a data set, without the folders of the machine that trained."""
    words: list[str] = []
    start = None  # the place of the last path; it may go on after spaces
    for word in ASIDE.sub("", provenance).split(" "):
        goes_on = start is not None and "/" in word and "://" not in word
        if PATH.match(word):
            start, goes_on = len(words), True
        elif goes_on:
            del words[start:]
        words.append(PurePath(word).name if goes_on else word)
    return " ".join(words)
