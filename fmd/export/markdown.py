"""Tables of a model card."""

import json
from collections.abc import Iterable, Sequence

LONGEST_VALUE = 120  # letters in a table


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(_cell(value) for value in line)} |" for line in lines)


def short(value: object) -> str:
    """A number with six digits; anything else as JSON, cut."""
    if isinstance(value, float):
        return f"{value:.6g}"
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= LONGEST_VALUE else f"{text[: LONGEST_VALUE - 3]}..."


def _cell(value: object) -> str:
    return " ".join(str(value).replace("|", "\\|").split())
