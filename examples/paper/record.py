"""The JSON record of a finished piece of work: its numbers, how long it took, on which machine.

Scripts in this folder import it as `record`, those in examples/ as `paper.record`:

    started = time.time()
    ...
    save_record(args.output / "water_rdf.json", {"peak": 2.74, "paper": 2.74}, started)

`examples/reproduce_paper.py` reads these files. An existing record means that the work need not be repeated.
"""

from __future__ import annotations

import datetime
import json
import os
import platform
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import dpa2calc

RUN = "run"  # the key under which a record says how it was made


def machine() -> dict[str, Any]:
    """CPU model, number of cores that this process may use, operating system, versions."""
    import torch

    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        lines = info.read_text(encoding="utf-8").splitlines()
        model = next((s.split(":", 1)[1].strip() for s in lines if s.startswith("model name")), model)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "cpu": model,
        "cores": cores,
        "threads": torch.get_num_threads(),
        "system": platform.system(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "dpa2calc": dpa2calc.__version__,
    }


def save_record(path: str | Path, data: Mapping[str, Any], started: float | None) -> dict[str, Any]:
    """Write `data` and, under "run", wall time, machine and date; the file is renamed into place when whole.

    Args:
        data: ready for JSON.
        started: `time.time()` at the beginning of the work; None for work whose time other records hold.

    Returns:
        what was written.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    run = {
        "seconds": None if started is None else round(time.time() - started, 1),
        "machine": machine(),
        "date": datetime.date.today().isoformat(),
    }
    whole = {**data, RUN: run}
    temporary = target.with_name(target.name + ".part")
    temporary.write_text(json.dumps(whole, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(temporary, target)
    return whole


def load_record(path: str | Path) -> dict[str, Any] | None:
    """What `save_record` wrote, or None where there is no such file."""
    target = Path(path)
    return dict(json.loads(target.read_text(encoding="utf-8"))) if target.exists() else None


def once(path: str | Path, work: Callable[[], Mapping[str, Any]]) -> dict[str, Any]:
    """The record at `path`; where there is none, `work()` is done first and its result recorded."""
    known = load_record(path)
    if known is not None:
        return known
    started = time.time()
    return save_record(path, work(), started)


def total_seconds(folder: str | Path) -> float:
    """Sum of the wall times of all records in a folder and the folders below it, s."""
    total = 0.0
    for path in Path(folder).rglob("*.json"):
        try:
            run = json.loads(path.read_text(encoding="utf-8"))[RUN]
        except (ValueError, KeyError, TypeError):  # some other JSON file of a run
            continue
        total += run["seconds"] or 0.0
    return total
