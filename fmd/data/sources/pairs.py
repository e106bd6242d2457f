"""The source `pairs`: image to image, two folders whose files are matched by name.

    PATH/input/1.jpg  PATH/target/1.png                   the same name, whatever the suffix, at any depth
    PATH/train/input/...  PATH/train/target/...           with splits above, by any of their usual names
    PATH/input/train/...  PATH/target/train/...           or below; class folders below `target` are classes

    load("pairs", path=PATH, image_size=64)                                   # the images, and the part `input`
    load("pairs", path=PATH, image_size=64, target="photo", conditions={"depth": "image", "outline": "mask"})

The images are those of `target`. An example whose image or input cannot be read is left out.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

from absl import logging

from fmd.data import images, layout
from fmd.data.assembly import Told, assemble, say_not_taken
from fmd.data.dataset import ImageDataset
from fmd.data.file_names import SUFFIXES, roles, visible_names
from fmd.data.layout import Finder, Found
from fmd.data.parts import ON_GRID, Asked, Spec, asked
from fmd.data.sources import register_source
from fmd.files import expand, printable, some

Key: TypeAlias = tuple[int, str]


@register_source("pairs")
def load_pairs(
    path: str,
    image_size: images.Size = None,
    channels: int | None = None,
    test_fraction: float = 0.1,
    target: str = "target",
    conditions: Asked = ("input",),
    input_size: images.Size = None,
) -> ImageDataset:
    """Images under `path` with the images that they are to be made from, all cropped at the centre and resized.

    Args:
        path: the folder that holds the others, laid out as above.
        image_size, channels, test_fraction: as in the source `folder`.
        target: the folder of the images.
        conditions: the folders of the inputs, each a part of the condition: of kind image, or as a mapping says.
        input_size: of the inputs, like `image_size`, where it is another; its proportions should be the same.

    Raises:
        FileNotFoundError: for a missing folder or one without images.
        ValueError: for mixed channel counts or sizes, for two files of one name, where no names match, and as the
            source `folder`.
    """
    root = expand(path)
    wanted: dict[str, Spec] = {name: {"kind": "image", **given} for name, given in asked(conditions).items()}
    if wrong := next((name for name, given in wanted.items() if given["kind"] not in ON_GRID), None):
        raise ValueError(f"conditions: {wrong!r} is a folder of images: its kind must be image or mask")
    if not wanted:
        raise ValueError("conditions must name a folder of inputs at least; images alone are of the source folder")
    size, own = images.height_width(image_size), images.height_width(image_size if input_size is None else input_size)
    if size and own and size[0] * own[1] != size[1] * own[0]:
        logging.warning("folder %s: inputs %dx%d are cut to other proportions than images %dx%d", root, *own, *size)
    found, bases = _targets(root, target)
    say_not_taken(root, found)
    if len(found.classes) == 1:
        found = replace(found, classes=())
    targets = [base / target for base in bases]
    _by_key(targets)  # no two of one name
    inputs = {name: _by_key([base / name for base in bases]) for name in wanted}
    found = _matched(root, found, targets, inputs)
    files = {name: [known[_key(file, targets)] for file in found.files] for name, known in inputs.items()}
    return assemble(root, found, image_size, channels, test_fraction, Told(wanted, {}, {**files}, own))


def _targets(root: Path, target: str) -> tuple[Found, list[Path]]:
    """The images, and the folders that hold their folder and those of the inputs: one, or one for each split."""
    if (root / target).is_dir():
        return layout.find(root / target), [root]
    known = {name: number for name, number in roles(visible_names(root)).items() if (root / name / target).is_dir()}
    train, *tests = sorted(known, key=known.__getitem__) or [""]
    if known.get(train) != 0:
        raise FileNotFoundError(
            f"{printable(root)} has no folder '{target}', nor a training folder with one: it needs the images there, "
            f"and their inputs in folders beside it"
        )
    finder = Finder(root)
    found = finder.in_splits(root, finder.scan(root / train / target), [f"{name}/{target}" for name in tests], [])
    return found, [root / name for name in (train, *tests)]


def _key(file: Path, folders: Sequence[Path]) -> Key:
    """The folder that a file lies in, by number, and its path there without the suffix."""
    number = next(number for number, folder in enumerate(folders) if file.is_relative_to(folder))
    name = str(file.relative_to(folders[number]))
    return number, name.removesuffix(file.suffix) if file.suffix.lower() in SUFFIXES else name


def _by_key(folders: Sequence[Path]) -> dict[Key, Path]:
    """The images below some folders.

    Raises FileNotFoundError for a missing folder, ValueError for two files of one name.
    """
    found: dict[Key, Path] = {}
    for folder in folders:
        if not folder.is_dir():
            raise FileNotFoundError(f"there is no folder {printable(folder)}: it needs a file for each image")
        for file in Finder(folder).scan(folder).images:
            other = found.setdefault(_key(file, folders), file)
            if other != file:
                one, two = (printable(path.relative_to(folder)) for path in (other, file))
                raise ValueError(f"{printable(folder)} has two files of one name, {one} and {two}: leave one of them")
    return found


def _matched(root: Path, found: Found, targets: Sequence[Path], inputs: Mapping[str, Mapping[Key, Path]]) -> Found:
    """The images that have all inputs; says in the log which files have no partner."""
    kept = found.only(lambda file: all(_key(file, targets) in known for known in inputs.values()))
    keys = {_key(file, targets) for file in kept.files}
    alone = [file for file in found.files if _key(file, targets) not in keys]
    spare = [file for known in inputs.values() for key, file in known.items() if key not in keys]
    words = "; ".join(
        f"{len(files)} {what} ({some([printable(file.relative_to(root)) for file in files])})"
        for files, what in ((alone, "images without an input of their name"), (spare, "inputs without an image"))
        if files
    )
    if not kept.train:
        raise ValueError(f"{printable(root)}: no training image has an input: {words}; files are matched by name")
    if words:
        logging.warning("folder %s: left out: %s", printable(root), words)
    return kept
