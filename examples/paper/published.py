"""Errors of other potentials on the mlearn test frames, as `mlearn_published.py` measured them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

FILE = Path(__file__).parents[1] / "data" / "mlearn_published.json"
METHODS = ("MTP", "SNAP", "qSNAP")


def published() -> tuple[str, dict[str, dict[str, Any]]]:
    """Where the numbers are from, and element -> method -> errors (`Errors.to_dict`)."""
    record = json.loads(FILE.read_text(encoding="utf-8"))
    return record["source"], record["errors"]
