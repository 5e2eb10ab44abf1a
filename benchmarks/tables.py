"""The tables of speed in README.md and docs/speed.md, written anew from results/*.json.

python benchmarks/tables.py
"""

import json
from collections.abc import Iterable
from typing import Any

from common import RESULTS, put_table


def rows_of(*files: str) -> list[dict[str, Any]]:
    """Rows that have a ratio, of several files of speed.py."""
    found = [row for file in files for row in json.loads((RESULTS / file).read_text())["rows"]]
    return [row for row in found if "ratio" in row]


def cells(row: dict[str, Any]) -> str:
    """Ours, theirs (ms per atom), ratio of the smallest times and of the medians."""
    ours, theirs = (1e3 * row[engine]["min"] / row["atoms"] for engine in ("dpa2calc", "deepmd"))
    return f"{ours:.2f} | {theirs:.2f} | {row['ratio']:.1f} ({row['ratio_median']:.1f})"


def memory(row: dict[str, Any]) -> str:
    """Peak memory of both engines, MB."""
    return " / ".join(f"{row[engine]['peak_mb']:.0f}" for engine in ("dpa2calc", "deepmd"))


def by_model() -> Iterable[str]:
    """192 atoms of water: one thread, two threads, memory."""
    yield (
        "| model | ours, 1 thread | deepmd-kit 3.2.0 | ratio | ours, 2 threads | deepmd-kit | ratio | "
        "peak MB, ours / theirs |"
    )
    yield "|---|---|---|---|---|---|---|---|"
    rows = rows_of("speed.json")
    for model in dict.fromkeys(row["model"] for row in rows):
        one, two = (next(r for r in rows if (r["model"], r["threads"]) == (model, t)) for t in (1, 2))
        yield f"| {model} | {cells(one)} | {cells(two)} | {memory(two)} |"


def other_systems() -> Iterable[str]:
    """Larger and other systems, a row each."""
    yield "| model, system | threads | ours, ms/atom | deepmd-kit | ratio | peak MB, ours / theirs |"
    yield "|---|---|---|---|---|---|"
    for row in rows_of("speed_1536.json", "speed_other.json"):
        yield f"| {row['model']}, {row['system']} | {row['threads']} | {cells(row)} | {memory(row)} |"


def students() -> Iterable[str]:
    """Compressed students, µs per atom."""
    yield "| system | ours, `dpa1-l0` | deepmd-kit | ratio | ours, DeepPot-SE | deepmd-kit | ratio |"
    yield "|---|---|---|---|---|---|---|"
    for system in json.loads((RESULTS / "student.json").read_text())["systems"]:
        line = [system["system"]]
        for name in ("student", "deeppot-se"):
            ours, theirs = (system["engines"].get(f"{name}{end}") for end in ("", " deepmd"))
            line.append(f"{1e6 * ours['min'] / system['atoms']:.0f}")
            line.append(f"{1e6 * theirs['min'] / system['atoms']:.0f}" if theirs else "-")
            line.append(f"{theirs['min'] / ours['min']:.1f}" if theirs else "")
        yield f"| {' | '.join(line)} |"


def peers() -> Iterable[str]:
    """Other universal models through their ASE calculators."""
    rows = json.loads((RESULTS / "peers.json").read_text())["rows"]
    names = {"mace": "MACE, medium", "sevennet": "SevenNet-0", "chgnet": "CHGNet 0.3.0"}
    systems = list(dict.fromkeys(row["system"] for row in rows))
    yield f"| model | {' | '.join(f'{s}, ms/atom | times `default` | peak MB' for s in systems)} |"
    yield f"|---|{'---|' * (3 * len(systems))}"
    for model in dict.fromkeys(row["model"] for row in rows):
        line = [names.get(model, f"`{model}`")]
        for system in systems:
            found = {row["model"]: row for row in rows if row["system"] == system}
            if model not in found:
                line += ["-", "", ""]
                continue
            row, ours = found[model], found["default"]
            line.append(f"{1e3 * row['min'] / row['atoms']:.2f}")
            line += [f"{row['min'] / ours['min']:.3g}", f"{row['peak_mb']:.0f}"]
        yield f"| {' | '.join(line)} |"


def gpu() -> Iterable[str]:
    """ms a step on a GPU by number of atoms, launched one by one and recorded; two of its limits."""
    plain, recorded = (run["cases"] for run in json.loads((RESULTS / "gpu.json").read_text())["runs"])
    yield "| model | 192 atoms | 1536 | 6144 | 19200 | GPU at work in a step of 192 | peak MB, 6144 |"
    yield "|---|---|---|---|---|---|---|"
    for model in ("paper", "medium", "small", "default", "dpa1-l0", "student-water"):
        line = []
        for size in (192, 1536, 6144, 19200):
            found = [run.get(f"inference {model} {size} cuda") for run in (plain, recorded)]
            line.append(" / ".join("-" if case is None else f"{case['ms']:.3g}" for case in found))
        small, large = (recorded[f"inference {model} {size} cuda"] for size in (192, 6144))
        yield f"| {model} | {' | '.join(line)} | {small['busy_ms']:.1f} | {large['peak_mb']} |"


def main() -> None:
    """Write all tables."""
    put_table("README.md", "speed by model", by_model())
    put_table("docs/speed.md", "other systems", other_systems())
    put_table("docs/speed.md", "compressed students", students())
    put_table("docs/speed.md", "other universal models", peers())
    put_table("docs/speed.md", "on a GPU", gpu())


if __name__ == "__main__":
    main()
