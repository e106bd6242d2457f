"""Columns of a table as arrays of a kind.

    whole numbers, truth values    labels themselves, counted from 0
    other numbers                  a number
    texts                          labels: the distinct texts in natural order, 2 before 10
    lists of numbers               a vector; several labels at once where all are 0 or 1
    lists of texts                 several labels at once: the distinct texts in natural order

Where the kind is given it decides: `number` for whole years, `label` for texts of which some are numbers.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fmd.data.file_names import natural
from fmd.data.parts import Spec, as_kind
from fmd.data.tables import Cell, Row
from fmd.files import printable, some

_WHOLE, _NUMBER = re.compile(r"[+-]?\d+"), re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")

TEXT, NUMBER, TEXTS, NUMBERS = ALL = ("a text", "a number", "a list of texts", "a list of numbers")
_FORMS = {"label": (NUMBER, TEXT), "labels": (NUMBERS, TEXTS), "number": (NUMBER,), "vector": (NUMBER, NUMBERS)}


@dataclass(frozen=True)
class Values:
    """The values of a column.

    Attributes:
        array: [N, ...], as a split has it.
        given: the spec of their kind, as far as it is known.
        names: the texts that labels stand for; empty without such.
    """

    array: np.ndarray
    given: Spec
    names: tuple[str, ...] = ()

    def meaning(self, shown: int = 20) -> str:
        """The labels with their texts, "0 blue, 1 red"; empty without such."""
        pairs = [f"{label} {printable(name)}" for label, name in enumerate(self.names)]
        return ", ".join([*pairs[:shown], "..."] if len(pairs) > shown else pairs)


def values(rows: Sequence[Row], column: str, given: Spec) -> Values:
    """The values of a column, as the kind that is given or found.

    Raises ValueError, naming the column, the table and the line, for empty cells and for values of another kind.
    """
    cells = [row.cells.get(column) for row in rows]
    empty = [row.where for row, cell in zip(rows, cells, strict=True) if cell is None or cell == ""]
    if empty:
        raise ValueError(
            f"column '{column}' is empty in {len(empty)} of {len(rows)} rows ({some(empty)}): fill these cells, or "
            f"take the rows out, and their images are left out"
        )
    kind, ready = given.get("kind"), [_ready(cell) for cell in cells]
    if kind == "label" and TEXT in map(_form, ready):
        ready = [cell if isinstance(cell, list) else str(cell) for cell in cells]
    form = _one_form(rows, column, ready, _FORMS.get(str(kind), ALL))
    if form == TEXT:
        names = sorted(set(ready), key=natural)
        numbers = {name: label for label, name in enumerate(names)}
        return _made([numbers[text] for text in ready], column, given, "label", names)
    if form == TEXTS:
        names = sorted({text for texts in ready for text in texts}, key=natural)
        return _made([[name in texts for name in names] for texts in ready], column, given, "labels", names)
    if form == NUMBER:
        return _made(ready, column, given, "label" if all(isinstance(cell, int) for cell in ready) else "number")
    other = next((row for row, cell in zip(rows, ready, strict=True) if len(cell) != len(ready[0])), None)
    if other:
        raise ValueError(
            f"column '{column}': the lists of {rows[0].where} and {other.where} differ in length: correct one"
        )
    marks = all(number in (0, 1) and isinstance(number, int) for cell in ready for number in cell)
    return _made(ready, column, given, "labels" if marks else "vector")


def _made(ready: Sequence[Cell], column: str, given: Spec, found: str, names: Sequence[str] = ()) -> Values:
    whole: Spec = {"kind": found, **given}
    return Values(as_kind(np.array(ready), column, whole), whole, tuple(names))


def _one_form(rows: Sequence[Row], column: str, ready: Sequence[Cell], allowed: Sequence[str]) -> str:
    """The form that all cells have. Raises ValueError where they differ, or have one that is not allowed."""
    forms = [_form(cell) for cell in ready]
    for row, form in zip(rows, forms, strict=True):
        cell = printable(str(row.cells[column]))[:40]
        if form not in allowed:
            raise ValueError(
                f"{row.where}: column '{column}' must be {' or '.join(allowed)}, got '{cell}'; correct the cell, or "
                f"ask for another kind"
            )
        if form != forms[0]:
            raise ValueError(
                f"column '{column}' has {forms[0]} in {rows[0].where}, but '{cell}' in {row.where}: correct one, or "
                f"say which kind, e.g. {{'{column}': 'label'}}"
            )
    return forms[0]


def _form(cell: Cell) -> str:
    """The form of a cell in words; "" for one that cannot be told."""
    if isinstance(cell, str):
        return TEXT
    if isinstance(cell, int | float):
        return NUMBER if math.isfinite(cell) else ""
    inner = {_form(one) for one in cell} if isinstance(cell, list) else {""}
    return {frozenset({NUMBER}): NUMBERS, frozenset({TEXT}): TEXTS, frozenset(): TEXTS}.get(frozenset(inner), "")


def _ready(cell: Cell) -> Cell:
    """Texts of numbers as numbers, truth values as 0 and 1."""
    if isinstance(cell, list):
        return [int(one) if isinstance(one, bool) else one for one in cell]
    if isinstance(cell, bool) or (isinstance(cell, str) and _WHOLE.fullmatch(cell)):
        return int(cell)
    return float(cell) if isinstance(cell, str) and _NUMBER.fullmatch(cell) else cell
