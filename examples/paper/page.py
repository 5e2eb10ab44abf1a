"""HTML of the page that `examples/reproduce_paper.py` writes: tables and figures from JSON records."""

from __future__ import annotations

import base64
import html
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from .record import RUN

Record = Mapping[str, Any]
Renderer = Callable[[Record, Path], str]  # a record and its folder -> HTML

STYLE = """
body { font: 15px/1.5 sans-serif; max-width: 70em; margin: 2em auto; padding: 0 1em; color: #222 }
h1 { font-size: 1.6em } h2 { font-size: 1.25em; margin-top: 2.5em; border-bottom: 1px solid #ccc }
table { border-collapse: collapse; margin: 1em 0; font-size: 90%; display: block; overflow-x: auto }
caption { text-align: left; font-weight: bold; padding: .3em 0 }
th, td { padding: .15em .7em; text-align: right; border-bottom: 1px solid #eee; white-space: nowrap }
th:first-child, td:first-child { text-align: left } th { border-bottom: 1px solid #999 }
img { max-width: 100% } .note, .made { color: #555; font-size: 90% }
.quick, .missing { background: #fff4d6; padding: .3em .6em } .bad { color: #a00 } .good { color: #070 }
"""


def page(title: str, introduction: str, sections: Sequence[tuple[str, str]]) -> str:
    """A whole page with a list of contents; sections are (title, HTML)."""
    contents = "".join(f'<li><a href="#s{i}">{html.escape(t)}</a></li>' for i, (t, _) in enumerate(sections))
    body = "".join(f'<h2 id="s{i}">{html.escape(t)}</h2>\n{text}\n' for i, (t, text) in enumerate(sections))
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f"<style>{STYLE}</style></head>\n<body><h1>{html.escape(title)}</h1>\n{introduction}\n"
        f"<ol>{contents}</ol>\n{body}</body></html>\n"
    )


def table(columns: Sequence[Any], rows: Sequence[Sequence[Any]], caption: str = "") -> str:
    """An HTML table; numbers as in the text reports."""
    head = "".join(f"<th>{html.escape(str(c))}</th>" for c in columns)
    lines = "".join("<tr>" + "".join(f"<td>{cell(c)}</td>" for c in row) + "</tr>\n" for row in rows)
    title = f"<caption>{html.escape(caption)}</caption>" if caption else ""
    return f"<table>{title}<thead><tr>{head}</tr></thead>\n<tbody>{lines}</tbody></table>"


def cell(value: Any) -> str:
    """A cell's text: nothing for None, yes or no, at most three figures after the point."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return '<span class="good">yes</span>' if value else '<span class="bad">no</span>'
    if isinstance(value, float):
        return f"{value:.1f}" if abs(value) >= 10 else f"{value:.3g}"
    if isinstance(value, (list, tuple)):
        return ", ".join(cell(v) for v in value)
    return html.escape(str(value))


def image(path: Path) -> str:
    """A PNG inside the page; a remark where the file is missing."""
    if not path.exists():
        return f'<p class="missing">the figure {html.escape(str(path))} is missing</p>'
    data = base64.b64encode(path.read_bytes()).decode("ascii")
    return f'<img alt="{html.escape(path.stem)}" src="data:image/png;base64,{data}">'


def made(record: Record) -> str:
    """How long it took, on what, when; a warning for quick runs."""
    run = record.get(RUN, {})
    seconds = record.get("work_seconds", run.get("seconds"))
    computer = run.get("machine", {})
    parts = [duration(seconds)] if seconds is not None else ["time not recorded"]
    if computer:
        parts.append(f"{computer['cpu']}, {computer['cores']} cores, {computer['threads']} thread(s)")
        parts.append(f"dpa2calc {computer['dpa2calc']}, torch {computer['torch']}")
    parts.append(str(run.get("date", "")))
    text = f'<p class="made">{html.escape("; ".join(p for p in parts if p))}</p>'
    if record.get("quick"):
        text = (
            '<p class="quick">A quick run: it shows that everything works; its numbers mean nothing.</p>'
            + text
        )
    return text


def duration(seconds: float) -> str:
    """In words: seconds, minutes or hours.

    Example:
        >>> duration(30), duration(600), duration(9000)
        ('30 s', '10 min', '2.5 h')
    """
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def report(record: Record, folder: Path) -> str:
    """A record of `paper/report.py`: figures, tables (the paper's numbers are among them), notes."""
    parts = [image(folder / name) for name in record["figures"]]
    parts += [table(t["columns"], t["rows"], t["caption"]) for t in record["tables"]]
    parts += [f'<p class="note">{html.escape(note)}</p>' for note in record["notes"]]
    return "\n".join(parts)


def verdicts(record: Record, folder: Path) -> str:
    """A record of an application: its figure, its claims, its other numbers."""
    parts = [image(path) for path in sorted(folder.glob("*.png"))]
    found = [list(v.values()) for v in record.get("verdicts", [])]
    if found:
        parts.append(table(("claim", "measured", "holds"), found))
    return "\n".join(
        [*parts, *numbers({k: v for k, v in record.items() if k not in ("verdicts", "quick", RUN)})]
    )


def numbers(record: Record) -> list[str]:
    """Tables of what a record holds: its plain values, its lists of rows, its dicts of rows.

    Deeper values (curves, arrays) are left to the JSON file.
    """
    plain = [(name, value) for name, value in record.items() if _is_short(value)]
    tables = [table(("", "value"), plain)] if plain else []
    for name, value in record.items():
        if isinstance(value, Mapping):
            rows = [{name: key, **row} for key, row in value.items() if isinstance(row, Mapping)]
        elif isinstance(value, (list, tuple)):
            rows = [row for row in value if isinstance(row, Mapping)]
        else:
            rows = []
        columns = [c for c in dict.fromkeys(c for row in rows for c in row) if _is_column(c, rows)]
        if columns:
            tables.append(table(columns, [[row.get(c) for c in columns] for row in rows], name))
    return tables


def _is_short(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return len(value) <= 6 and all(v is None or isinstance(v, (str, int, float)) for v in value)
    return not isinstance(value, Mapping)


def _is_column(name: str, rows: Sequence[Record]) -> bool:
    return all(_is_short(row.get(name)) for row in rows)
