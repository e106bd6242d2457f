"""Tables of metadata beside image files: `metadata.csv` or `metadata.jsonl`, as image folders of the Hub have them.

    file_name,age,colour,low_file_name              {"file_name": "a.png", "age": 3.5, "style": [0.1, 0.7]}
    a.png,3.5,red,low/a.png                         {"file_name": "b.png", "age": 4.0, "style": [0.2, 0.3]}

A table lies in the folder itself or in one of the three levels below it, and its paths begin where it lies.
`file_name` is the image that a row is about; `low_file_name` is a further image, which is called `low`.
"""

import csv
import io
import json
import os
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeAlias

from fmd.files import printable

NAMES = ("metadata.csv", "metadata.jsonl")
FURTHER = "_file_name"  # ends the columns of further images

Cell: TypeAlias = Any
"""A value of JSON, or a text of a CSV file; None and "" are empty."""


@dataclass(frozen=True)
class Row:
    """A row of a table.

    Attributes:
        where: table and line, for messages.
        folder: where its paths begin.
        cells: by column.
    """

    where: str
    folder: Path
    cells: dict[str, Cell]

    def file(self, column: str) -> Path:
        """The path in a column. Raises ValueError for a cell that is no text."""
        cell = self.cells.get(column)
        if not isinstance(cell, str) or not cell.strip():
            raise ValueError(f"{self.where}: '{column}' must be the path of a file, got {cell!r}; correct the row")
        folder, path = self.folder, os.path.normpath(cell.strip().replace("\\", "/"))
        while path.startswith("../"):
            folder, path = folder.parent, path.removeprefix("../")
        return folder / path


@dataclass(frozen=True)
class Table:
    """The rows of all tables of a folder.

    Attributes:
        paths: of the tables.
        rows: by image file.
        columns: those that any row has.
    """

    paths: list[Path]
    rows: dict[Path, Row]
    columns: list[str]

    def column(self, name: str) -> str:
        """The column of a name; `low` may be the column `low_file_name`. Raises ValueError, listing all, for none."""
        for column in (name, name + FURTHER):
            if column in self.columns:
                return column
        where = " and ".join(map(printable, self.paths))
        raise ValueError(f"{where}: there is no column '{name}', only: {', '.join(map(printable, self.columns))}")

    def beside(self, columns: Collection[str]) -> set[Path]:
        """The paths that are no images of the set: tables, further images, and the folders that hold these alone.

        Further images are those of the columns named so, and of `columns`.
        """
        further = {column for column in self.columns if column.endswith(FURTHER)} | {*columns}
        files = {row.file(column) for row in self.rows.values() for column in further if row.cells.get(column)}
        folders = {above for file in files for above in file.parents}
        return {*self.paths, *files, *folders} - {path for file in self.rows for path in (file, *file.parents)}


def read(folder: Path) -> Table:
    """The rows of all tables of a folder.

    Raises:
        FileNotFoundError: where there is no table, and for rows whose file does not exist.
        ValueError: for a table that is damaged, empty or without the column `file_name`, and for two rows of one file.
    """
    paths = _find(folder)
    if not paths:
        other = next((p for depth in ("", "*/") for p in sorted(folder.glob(depth + "metadata.*"))), None)
        hint = f"; {printable(other.name)} is of another form: save it as one of these" if other else ""
        raise FileNotFoundError(f"there is no table {' or '.join(NAMES)} in {printable(folder)}{hint}")
    if twice := next((one for one, other in pairwise(paths) if one.parent == other.parent), None):
        raise ValueError(f"{printable(twice.parent)} holds both {' and '.join(NAMES)}: leave one of them there")
    rows: dict[Path, Row] = {}
    for row in (row for path in paths for row in _rows(path, printable(path.relative_to(folder)))):
        if (known := rows.setdefault(row.file("file_name"), row)) is not row:
            name = printable(row.cells["file_name"])
            raise ValueError(f"{printable(folder)}: {row.where} is of {name}, as {known.where} is: leave one")
    if not rows:
        raise ValueError(f"{printable(paths[0])} has no rows: it needs a row with `file_name` for each image")
    refuse_missing(folder, list(rows.values()), "file_name")
    return Table(paths, rows, list(dict.fromkeys(column for row in rows.values() for column in row.cells)))


def refuse_missing(folder: Path, rows: Sequence[Row], column: str) -> None:
    """Raises FileNotFoundError, naming some, for rows whose file in a column does not exist."""
    missing = [row for row in rows if not row.file(column).is_file()]
    if missing:
        some = ", ".join(f"{printable(row.cells[column])} ({row.where})" for row in missing[:3])
        raise FileNotFoundError(
            f"{printable(folder)}: {len(missing)} of {len(rows)} rows name a '{column}' that is not there: {some}; "
            f"paths begin where the table lies: correct them, add the files, or take the rows out"
        )


def _find(folder: Path) -> list[Path]:
    """The tables in a folder and in three levels below it, sorted, hidden ones left out."""
    found = (path for depth in range(4) for name in NAMES for path in folder.glob("*/" * depth + name))
    return sorted(path for path in found if not any(part.startswith(".") for part in path.relative_to(folder).parts))


def _rows(path: Path, shown: str) -> Iterator[Row]:
    """The rows of a table, each with the column `file_name`."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{printable(path)} cannot be read as UTF-8 text ({error}): save it as such") from None
    for line, cells in (_csv if path.suffix == ".csv" else _jsonl)(text, shown):
        if "file_name" not in cells:
            columns = ", ".join(map(printable, cells))
            raise ValueError(f"{shown} line {line}: there is no column 'file_name', only: {columns}; add it")
        yield Row(f"{shown} line {line}", path.parent, cells)


def _csv(text: str, shown: str) -> Iterator[tuple[int, dict[str, Cell]]]:
    """(line, cells) of each row; the first line names the columns."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        header = [name.strip() for name in next(reader, [])]
        if twice := next((name for name in header if header.count(name) > 1), None):
            raise ValueError(f"{shown}: two columns are called '{printable(twice)}': rename one")
        for cells in reader:
            if cells and len(cells) != len(header):
                raise ValueError(
                    f"{shown} line {reader.line_num} has {len(cells)} cells, the first line {len(header)}: separate "
                    f"them by commas, and put texts with commas in quotation marks"
                )
            if cells:
                yield reader.line_num, dict(zip(header, map(str.strip, cells), strict=True))
    except csv.Error as error:
        raise ValueError(f"{shown} line {reader.line_num}: {error}; correct the line") from None


def _jsonl(text: str, shown: str) -> Iterator[tuple[int, dict[str, Cell]]]:
    """(line, cells) of each row; a row is a JSON object on a line of its own."""
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            cells = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{shown} line {number} is no JSON ({error}): write one object on each line") from None
        if not isinstance(cells, dict):
            raise ValueError(f"{shown} line {number} is no JSON object: write one, with `file_name`, on each line")
        yield number, cells
