"""One self-contained HTML page that shows a map of points: no network, no library."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np


def map_page(
    title: str,
    projections: Mapping[str, np.ndarray],
    labels: Mapping[str, Sequence[str]],
    codes: Mapping[str, np.ndarray],
    details: Sequence[str],
) -> str:
    """The page's text.

    Args:
        title: heading.
        projections: name -> coordinates (n, 2); each is scaled to the unit square.
        labels, codes: for each way to colour, the label names and each point's code (n,).
        details: what to show of each point under the mouse, besides its labels (n,).
    """
    data = {
        "projections": {name: _unit_square(points) for name, points in projections.items()},
        "labels": {key: list(names) for key, names in labels.items()},
        "codes": {key: [int(code) for code in values] for key, values in codes.items()},
        "details": list(details),
    }
    # No label can end the script or begin a comment in it: "\\u003c" is "<" to JSON and nothing to HTML.
    text = json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")
    page = (Path(__file__).parent / "map.html").read_text(encoding="utf-8")
    return page.replace("@title@", html.escape(title)).replace("@data@", text)


def _unit_square(points: np.ndarray) -> list[list[float]]:
    low = points.min(axis=0)
    size = max(float((points.max(axis=0) - low).max()), 1e-12)
    return [[round(float(value), 5) for value in row] for row in (points - low) / size]
