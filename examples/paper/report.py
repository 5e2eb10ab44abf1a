"""Tables of ours beside the paper's: as text, and in the JSON that `examples/reproduce_paper.py` shows.

A report is `OUTPUT/NAME.json` (numbers, tables, names of figures, notes, wall time, machine) and
`OUTPUT/NAME.txt`, the same to read.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from record import machine, save_record, total_seconds

Cell = str | float | int | None
QUICK = "--quick: a few steps to show that everything runs; these numbers mean nothing."


@dataclass(frozen=True)
class Table:
    """A caption, the column titles and the rows; numbers are shown with three figures or one decimal."""

    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]

    def text(self) -> str:
        """In columns of equal width; the first one starts at the left."""
        grid = [self.columns, *(tuple(shown(cell) for cell in row) for row in self.rows)]
        widths = [max(len(line[i]) for line in grid) for i in range(len(self.columns))]
        lines = [self.caption, "-" * len(self.caption)]
        for line in grid:
            cells = [line[0].ljust(widths[0])] + [c.rjust(w) for c, w in zip(line[1:], widths[1:])]
            lines.append("  ".join(cells).rstrip())
        return "\n".join(lines)


def shown(cell: Cell) -> str:
    """A cell's text: "-" for None, one decimal from 10 on, three figures below.

    Example:
        >>> shown(118.27), shown(2.345), shown(None)
        ('118.3', '2.35', '-')
    """
    if cell is None:
        return "-"
    if isinstance(cell, (int, str)):
        return str(cell)
    return f"{cell:.1f}" if abs(cell) >= 10 else f"{cell:.2f}" if abs(cell) >= 0.1 else f"{cell:.2g}"


def write_report(
    folder: Path,
    name: str,
    *,
    title: str,
    tables: Sequence[Table],
    figures: Sequence[str] = (),
    notes: Sequence[str] = (),
    numbers: Mapping[str, Any] | None = None,
    quick: bool = False,
) -> str:
    """Write `NAME.json` and `NAME.txt`; the wall time is the sum of the records in the folder.

    Args:
        figures: names of image files in the folder. numbers: whatever else is worth keeping.

    Returns:
        the text.
    """
    notes = ([QUICK] if quick else []) + list(notes)
    target = folder / f"{name}.json"
    target.unlink(missing_ok=True)  # else its own time would be counted
    seconds = total_seconds(folder)
    data = {
        "title": title,
        "quick": quick,
        "tables": [asdict(table) for table in tables],
        "figures": list(figures),
        "notes": notes,
        "numbers": dict(numbers or {}),
        "work_seconds": round(seconds, 1),
    }
    save_record(target, data, None)
    computer = machine()
    parts = [title, *(f"Note: {note}" for note in notes), *(table.text() for table in tables)]
    parts.append(f"{seconds / 60:.1f} minutes of work; {computer['cpu']}, {computer['threads']} thread(s)")
    text = "\n\n".join(parts) + "\n"
    temporary = folder / f"{name}.txt.part"
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, folder / f"{name}.txt")
    return text
