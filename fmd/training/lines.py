"""The files that a log is kept in: one line per entry, with the step it belongs to.

A log that is opened again drops the lines after the step that the run goes on from: they will come again. The lines
are also in memory, for the callbacks that show them; a run holds its logs by name in `run.logs`.
"""

import csv
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fmd.files import atomic_path, read_json_lines
from fmd.processes import is_main_process

Line = dict[str, Any]  # numbers by name, None where there is none; "step" is always there


class JsonLines:
    """`path` holds one JSON object per line; `lines` has them, too. Only the main process writes.

    Args:
        path: the file; made with the first line.
        after: the step the run is at; later lines that the file may hold are dropped.
    """

    def __init__(self, path: Path, *, after: int) -> None:
        self._path = path
        self.lines = [line for line in read_json_lines(path) if line["step"] <= after]
        if path.exists() and is_main_process():
            with atomic_path(path, overwrite=True) as temporary:
                temporary.write_text("".join(json.dumps(line) + "\n" for line in self.lines))

    def append(self, line: Mapping[str, Any]) -> None:
        """Adds a line; a number that is not finite is written as null."""
        line = {key: value if _is_plain(value) else None for key, value in line.items()}
        self.lines.append(line)
        if is_main_process():
            with open(self._path, "a") as file:
                file.write(json.dumps(line) + "\n")


class LineLog(JsonLines):
    """The same lines as JSON and as a table, `stem`.jsonl and `stem`.csv. A new name in a line adds a column."""

    def __init__(self, stem: Path, *, after: int) -> None:
        super().__init__(stem.with_suffix(".jsonl"), after=after)
        self._csv = stem.with_suffix(".csv")
        self._columns = list(dict.fromkeys(key for line in self.lines for key in line))
        if (self.lines or self._csv.exists()) and is_main_process():
            self._write_table()

    def append(self, line: Mapping[str, Any]) -> None:
        super().append(line)
        added = [key for key in line if key not in self._columns]
        self._columns += added
        if not is_main_process():
            return
        if added:
            self._write_table()
        else:
            with open(self._csv, "a", newline="") as table:
                csv.DictWriter(table, self._columns, restval="").writerow(self.lines[-1])

    def _write_table(self) -> None:
        with atomic_path(self._csv, overwrite=True) as temporary, open(temporary, "w", newline="") as table:
            writer = csv.DictWriter(table, self._columns, restval="")
            writer.writeheader()
            writer.writerows(self.lines)


def _is_plain(value: Any) -> bool:
    return not isinstance(value, float) or math.isfinite(value)
