"""Write the cards of the students inside the package.

    python examples/student_cards.py [--runs runs/students] > docs/students.md

Errors, rounds and origin come out of the checkpoints; the comparison with a student trained on all DFT
frames (the paper's Table S4) comes from what `examples/distill_students.py` left in its output folder.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from dpa2calc import available_models, load_model
from dpa2calc.training import registered_sets

INTRODUCTION = """\
# The students inside the package

DPA-1 models without attention (cutoff 6 Å), distilled by `examples/distill_students.py`: a DPA-2 was
fine-tuned on a tenth of the DFT frames, and the student learned its forces on the configurations
that dynamics visited. `student-perovskite` learned from the FerroEle head of the default model itself, on
crystals of six elements only (`examples/perovskite_student.py`). The teachers of `student-ferroelectric` and
`student-perovskite` come from the model of 29 sets, from before 28 November 2026, the others from the default
model of today: made again with that, the two were no better ([paper.md](paper.md#table-s4-distillation)).
With `pip install 'dpa2calc[compress]'`, `DPA2Calculator("student-water", compress=True)` runs them from
tables. This page is printed by `examples/student_cards.py`.

A student knows its own system and nothing else. Other elements are an error; other phases, surfaces, defects
or higher temperatures may be wrong, and there is a warning only where atoms are far from all that it learned
from ([uncertainty.md](uncertainty.md)).
"""
FOLDERS = {
    "student-water": "H2O-PBE0TS",
    "student-sse": "SSE-PBE",
    "student-ferroelectric": "FerroEle",
    "student-mgcu": "Alloy-MgCu",
    "student-3bpa": "Mol-3BPA",
}
CARDS = {**FOLDERS, "student-perovskite": "FerroEle"}


def main() -> None:
    """Print the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=Path, help="output folder of examples/distill_students.py")
    args = parser.parse_args()
    print(INTRODUCTION)
    for name, entry in available_models().items():
        if entry.shipped and name in CARDS:
            print(card(name, CARDS[name]))
    if args.runs is not None:
        print(comparison(args.runs))


def card(name: str, folder: str) -> str:
    """One student: what it is for, how it was made, its errors, its data."""
    potential, source = load_model(name), registered_sets()[folder]
    head = potential.config.heads[0]
    made = head.info["distillation"]
    size = sum(p.numel() for p in potential.parameters())
    rows = [
        ("against DFT, test frames", head.info["test_errors"]),
        ("against its teacher, frames of the last exploration", made["errors_against_teacher"]),
    ]
    lines = [
        f"## {name}\n",
        f"{source.domain}; {' '.join(head.elements)}; {head.functional}. {size:,} parameters, "
        f"{made['rounds']} rounds, {made['frames']} frames labelled by the teacher.\n",
        "| errors (RMSE) | frames | energy, meV/atom | force, meV/Å |",
        "|---|---|---|---|",
    ]
    lines += [
        f"| {what} | {e['n_frames']} | {_shown(e, 'energy')} | {_shown(e, 'force')} |" for what, e in rows
    ]
    lines.append(
        f"\nDFT frames: {source.source}; {source.citation}; licence: {source.licence or 'none stated'}.\n"
    )
    return "\n".join(lines)


def _shown(errors: dict[str, Any], kind: str) -> str:
    value = errors.get(f"{kind}_rmse")
    return "-" if value is None else f"{value:.1f}"


def comparison(runs: Path) -> str:
    """Table S4's shape: teacher, student, and the same student architecture trained on all frames."""
    lines = [
        "## Beside students trained on all DFT frames\n",
        "RMSE on the DFT test frames, meV/atom / meV/Å. The teacher's descriptor was pre-trained with all "
        "training frames of the collection, these sets' included; its own fine-tuning saw this share.\n",
        "| set | share of the frames | teacher | student | trained on all frames | force ratio |",
        "|---|---|---|---|---|---|",
    ]
    for name, folder in FOLDERS.items():
        path = runs / name.removeprefix("student-") / "table.json"
        if not path.exists():
            lines.append(f"| {folder} | not measured | | | | |")
            continue
        record = json.loads(path.read_text(encoding="utf-8"))
        pairs = [(record[k]["energy"], record[k]["force"]) for k in ("teacher", "student", "full data")]
        cells = " | ".join(f"{e:.1f} / {f:.0f}" for e, f in pairs)
        lines.append(f"| {folder} | {record['share']:.0f} % | {cells} | {pairs[1][1] / pairs[2][1]:.2f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
