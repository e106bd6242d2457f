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
    rows = {row[0] + row[-1]: row for row in map(table.cells, table.ROWS)}
    lines = re.findall(r"^\| (.*?) \| (\d+) \| ([^|]*) \| ([^|]*) % \| ([\d.]+) \|$", (ROOT / "README.md").read_text(), re.M)
    assert len(lines) == 3
    for what, *figures in lines:
        (name,) = re.findall(r"configs/(\w+)\.py", what)
        shown = next(row for key, row in rows.items() if key.startswith(f"`{name}`") and ("ships" in key) == ("load" in what))
        _, _, _, evaluations, fid, right, _, recall, *_ = shown
        assert figures == [evaluations, fid, right, recall.split()[0]]
