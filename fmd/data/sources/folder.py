"""The source `folder`: your own image files, of any size, and what a table says of them.

`fmd.data.layout` shows the layouts, `fmd.data.tables` the table `metadata.csv` or `metadata.jsonl`:

    PATH/metadata.csv       file_name,species,age,low_file_name
    PATH/birds/1.png        birds/1.png,wren,3.5,low/1.png
    PATH/low/1.png

    load("folder", path=PATH, image_size=64, label="species", conditions=("age", "low"))

Without a test folder a part of each class is held out. What is not taken is counted and said. One class alone is
allowed, and the log says so.
"""

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

from absl import logging

from fmd.data import columns, file_index, images, layout, tables
from fmd.data.assembly import Told, assemble, say_not_taken
from fmd.data.dataset import ImageDataset
from fmd.data.layout import Found
from fmd.data.parts import ON_GRID, Asked, Spec, asked
from fmd.data.sources import register_source
from fmd.data.streamed_files import stream_files
from fmd.files import expand, printable, some


@register_source("folder")
def load_folder(
    path: str,
    image_size: images.Size = None,
    channels: int | None = None,
    test_fraction: float = 0.1,
    conditions: Asked = (),
    label: str | None = None,
    stream: bool = False,
    test_images: int = 10_000,
) -> ImageDataset:
    """Images under `path`, cropped at the centre and resized.

    Args:
        path: the folder, laid out as `fmd.data.layout` shows.
        image_size: one number for squares, or (height, width); None where all files have the same size already.
        channels: 1 or 3 to convert every image; None takes what the files have, which must then agree.
        test_fraction: the part of each class that is held out where there is no test folder.
        conditions: columns of a table beside the images that the network is told, as `fmd.data.columns` makes arrays of
            them. As a mapping, their kinds, too, as `fmd.data.parts` describes. Further images are cropped and resized
            as the images are, unless a block says their height, width and channels.
        label: the column of the classes; None where the folders are the classes, or there are none.
        stream: leave the training split on disk, and decode as it goes; for sets that do not fit into memory. Needs
            `image_size`. Files are taken to have the channels of the test images. Where one cannot be read the next
            one stands in for it. The files are listed once, and again when a folder was changed.
        test_images: of a streamed set, how many of the test images, evenly spread, are kept in memory; without a test
            folder no more are held out.

    Raises:
        FileNotFoundError: for a missing folder, one without images, a missing table, and rows whose file is missing.
        ValueError: for mixed channel counts or sizes, for classes that only the test split has, where no image of a
            class can be read, and for a column that is missing, has empty cells, or values of another kind.
    """
    folder = expand(path)
    if channels not in (None, 1, 3):
        raise ValueError(f"channels must be 1 or 3, or None to take what the files have, got {channels}")
    wanted = asked(conditions)
    if not (wanted or label) or not folder.is_dir():
        if stream:
            return stream_files(file_index.index(folder), image_size, channels, test_fraction, test_images, Told())
        return assemble(folder, _find(folder), image_size, channels, test_fraction, Told())
    table = tables.read(folder)
    by_column = {table.column(name): given for name, given in wanted.items()}
    pictures = {column for column, given in by_column.items() if _is_picture(column, given)}
    for column in pictures:
        tables.refuse_missing(folder, list(table.rows.values()), column)
    found = _find(folder, table.beside(pictures), by_class=label is None)
    found = _with_rows(folder, found, table)
    rows = [table.rows[file] for file in found.files]
    if label is not None:
        found = _in_classes(folder, found, columns.values(rows, table.column(label), {"kind": "label"}))
    elif len(found.classes) == 1:
        found = replace(found, classes=())
    told = Told({}, {}, {}, images.height_width(image_size))
    for column, given in by_column.items():
        name = _part_name(column, table)
        if column in pictures:
            told.files[name], told.wanted[name] = [row.file(column) for row in rows], {"kind": "image", **given}
        else:
            told.values[name] = values = columns.values(rows, column, given)
            told.wanted[name] = values.given
            if values.names:
                logging.info("folder %s: %s: %s", printable(folder), name, values.meaning())
            if len(rows) > 20 and 2 * len(values.names) > len(rows):
                logging.warning(
                    "column '%s' has %d different texts in %d rows: that is no label, and nothing will be learnt of it",
                    *(column, len(values.names), len(rows)),
                )
    if stream:
        flat = file_index.of(folder, found)
        return stream_files(flat, image_size, channels, test_fraction, test_images, told)
    return assemble(folder, found, image_size, channels, test_fraction, told)


def _find(folder: Path, beside: Collection[Path] = (), by_class: bool = True) -> Found:
    """The findings of `fmd.data.layout.find`; the log says which files are not taken."""
    found = layout.find(folder, beside, by_class)
    say_not_taken(folder, found)
    return found


def _is_picture(column: str, given: Spec) -> bool:
    return given["kind"] in ON_GRID if "kind" in given else column.endswith(tables.FURTHER)


def _part_name(column: str, table: tables.Table) -> str:
    """The name of the part that a column becomes: `low` of `low_file_name`, where that is free."""
    name = column.removesuffix(tables.FURTHER)
    return column if name == "label" or name in table.columns else name


def _with_rows(folder: Path, found: Found, table: tables.Table) -> Found:
    """The files that have a row; says in the log how many have none."""
    kept = found.only(lambda file: file in table.rows)
    without = [printable(file.relative_to(folder)) for file in found.files if file not in table.rows]
    where = " and ".join(printable(path.relative_to(folder)) for path in table.paths)
    if not kept.train:
        raise ValueError(
            f"{printable(folder)}: no training image has a row in {where}, such as {some(without)}: add rows"
        )
    if without:
        logging.warning(
            "folder %s: %d of %d images have no row in %s and are left out: %s",
            *(printable(folder), len(without), len(found.files), where, some(without)),
        )
    return kept


def _in_classes(folder: Path, found: Found, column: columns.Values) -> Found:
    """The files with the labels of a column. Raises ValueError for a class of test images alone."""
    labels, count = column.array.tolist(), len(found.train)
    names = column.names or tuple(map(str, range(1 + max(labels))))
    if strange := sorted(set(labels[count:]) - set(labels[:count])):
        raise ValueError(
            f"{printable(folder)}: only test images are of class '{printable(names[strange[0]])}'; both splits need "
            f"the same classes"
        )
    listing = list(zip(found.files, labels, strict=True))
    return replace(found, classes=names, train=listing[:count], test=listing[count:] or None)
