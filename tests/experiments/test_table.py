"""The table of results: a row for each config, as the files say, and no other figure in the README."""

import re
from pathlib import Path

from experiments.reference import table

ROOT = Path(__file__).parents[2]


def test_it_is_what_the_files_say():
    assert table.TABLE.read_text() == table.text()


def test_each_config_has_a_row():
    assert {row.config for row in table.ROWS} == {path.stem for path in (ROOT / "configs").glob("*.py")}


def test_the_readme_says_the_same():
    line = re.compile(r"^\| ([^|]*) \| (\d+) \| ([^|]*) \| ([^|]*) % \| ([\d.]+) \|$", re.MULTILINE)
    rows = [table.cells(row) for row in table.ROWS]
    found = line.findall((ROOT / "README.md").read_text())
    assert len(found) == 5
    for what, *figures in found:
        (name,) = re.findall(r"configs/(\w+)\.py", what)
        shown = f"`{name}`, by two jumps" if "two jumps" in what else f"`{name}`"
        (row,) = [row for row in rows if row[0] == shown]
        assert figures == [*row[3:6], row[6].split()[0]]
