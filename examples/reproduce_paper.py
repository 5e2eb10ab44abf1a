"""One HTML page with the paper's tables and figures at our scale, the paper's numbers beside ours.

    python examples/reproduce_paper.py --data data                 # from what is in runs/ already
    python examples/reproduce_paper.py --data data --run quick     # a few steps of everything first
    python examples/reproduce_paper.py --data data --run full      # everything first: days on one core

The page is made from the JSON records that the scripts of examples/paper and the application examples leave
in their --output folders, and says what is missing and which command makes it. To add a section, add a row
to SECTIONS: title, record, renderer, script.
"""

from __future__ import annotations

import argparse
import html
import json
import os
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from paper import page
from paper.record import load_record

HERE = Path(__file__).parent
STUDENTS = ("water", "sse", "ferroelectric")
KINDS = ("teacher", "student", "full data")


@dataclass(frozen=True)
class Section:
    """A table or figure of the paper.

    Attributes:
        record: JSON file below the runs folder, in the --output folder of the script.
        render: makes HTML of the record. script: below examples/, makes the record.
        data: the option that names the data folder. options: further options; {runs} is the runs folder.
    """

    title: str
    record: str
    render: page.Renderer
    script: str
    data: Literal["--data", "positional", "none"] = "none"
    options: str = ""

    def command(self, runs: Path, data: Path, *, quick: bool) -> list[str]:
        """The command that makes the record."""
        words = [sys.executable, str(HERE / self.script)]
        words += {"--data": ["--data", str(data)], "positional": [str(data)], "none": []}[self.data]
        words += ["--output", str(runs / Path(self.record).parent)]
        return words + (["--quick"] if quick else shlex.split(self.options.format(runs=runs)))


def students(record: page.Record, folder: Path) -> str:
    """Table S4 from the records of `distill_students.py`, one a system (the record itself is the first)."""
    paper = {
        "water": (0.25, 0.3, 30.0, 0.4, 41.7, 0.4, 37.7),
        "sse": (1.01, 1.3, 72.0, 3.3, 101.0, 1.9, 96.7),
        "ferroelectric": (7.86, 1.6, 44.7, 2.5, 99.6, 1.9, 105.7),
    }
    rows: list[tuple[object, ...]] = []
    for name in STUDENTS:
        path = folder.parent / name / "table.json"
        if path.exists():
            ours = json.loads(path.read_text(encoding="utf-8"))
            errors = [ours[c][q] for c in KINDS for q in ("energy", "force")]
            rows.append((f"{name}, ours{' *' if ours['pretrained_on_it'] else ''}", ours["share"], *errors))
        else:
            rows.append((f"{name}, ours", *[None] * 7))
        rows.append((f"{name}, paper", *paper[name]))
    columns = (
        "system",
        "% of frames",
        *(f"{q} {c}" for c in ("teacher", "student", "full data") for q in "EF"),
    )
    remark = "* the pre-trained model has seen training frames of this set. The paper's sets are larger."
    return page.table(columns, rows, "RMSE on DFT test frames, meV/atom and meV/Å") + f"<p>{remark}</p>"


MULTI = "--model {runs}/paper/multitask/multi/last.safetensors"
SECTIONS = (
    Section(
        "Multi-task training and zero-shot errors (Tables S3 and 2)",
        "paper/multitask/multitask.json", page.report, "paper/multitask.py", "--data",
    ),
    Section(
        "Sample efficiency (Figures 3 and S1)",
        "paper/sample_efficiency/sample_efficiency.json", page.report,
        "paper/sample_efficiency.py", "--data", MULTI,
    ),
    Section(
        "Choice of head (Figure S2)",
        "paper/head_choice/head_choice.json", page.report, "paper/head_choice.py", "--data", MULTI,
    ),
    Section(
        "Ablation (Table S5)",
        "paper/ablation/ablation.json", page.report, "paper/ablation.py", "--data",
    ),
    Section(
        "The mlearn elements",
        "paper/mlearn/mlearn.json", page.report, "paper/mlearn.py", "--data",
    ),
    Section(
        "Distillation (Table S4)",
        "students/water/table.json", students, "distill_students.py", "positional",
    ),
    Section(
        "Water: g(r) and angles (Figure 4a-b)",
        "water_rdf/water_rdf.json", page.verdicts, "water_rdf.py",
    ),
    Section(
        "Li diffusion in Li10GeP2S12 (Figure 4c)",
        "lgps_diffusion/lgps_diffusion.json", page.verdicts, "lgps_diffusion.py",
    ),
    Section(
        "A student for lead perovskites (Figure 4d-e)",
        "perovskite_student/perovskite_student.json", page.verdicts, "perovskite_student.py", "positional",
    ),
    Section(
        "Ferroelectric transitions (Figure 4d-e)",
        "perovskite_transition/perovskite_transition.json", page.verdicts, "perovskite_transition.py",
    ),
    Section(
        "Energy conservation (section S8)",
        "paper/nve/nve.json", page.report, "paper/nve.py", "--data",
    ),
    Section(
        "Energy conservation against the time step (section S8)",
        "energy_conservation/energy_conservation.json", page.verdicts, "energy_conservation.py",
    ),
    Section(
        "Maps of descriptors (Figure 5)",
        "representation/representation.json", page.verdicts, "representation.py", "positional",
    ),
    Section(
        "Metals and semiconductors beside PBE",
        "metals_and_semiconductors/metals_and_semiconductors.json", page.verdicts,
        "metals_and_semiconductors.py",
    ),
)  # fmt: skip


def main() -> None:
    """Run the scripts if asked, then write the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=Path("data"), help="folder of the training sets")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="where the records are")
    parser.add_argument("--output", type=Path, help="the page (default: RUNS/paper.html)")
    parser.add_argument("--run", choices=("no", "quick", "full"), default="no", help="run the scripts first")
    args = parser.parse_args()
    runs = args.runs / "quick" if args.run == "quick" else args.runs
    if args.run != "no":
        run_all(runs, args.data, quick=args.run == "quick")
    output = args.output or runs / "paper.html"
    output.parent.mkdir(parents=True, exist_ok=True)
    text = whole_page(runs, args.data)
    temporary = output.with_name(output.name + ".part")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, output)
    print(output)


def run_all(runs: Path, data: Path, *, quick: bool) -> None:
    """Run every script, one after the other; one that fails is named and the others go on."""
    for section in SECTIONS:
        command = section.command(runs, data, quick=quick)
        if section.script == "distill_students.py":  # its records are one folder further down
            command[command.index("--output") + 1] = str(runs / "students")
        print(shlex.join(command), file=sys.stderr, flush=True)
        code = subprocess.run(command, check=False).returncode
        if code:
            print(f"{section.script} ended with code {code}", file=sys.stderr, flush=True)


def whole_page(runs: Path, data: Path) -> str:
    """The page from the records that are there."""
    rows: list[tuple[object, ...]] = []
    parts: list[tuple[str, str]] = []
    for section in SECTIONS:
        path = runs / section.record
        record = load_record(path)
        if record is None:
            command = shlex.join(["python", "examples/" + section.script])
            text = f'<p class="missing">Missing: {html.escape(str(path))}; run <code>{command}</code>.</p>'
            rows.append((section.title, "missing", None, None))
        else:
            text = section.render(record, path.parent) + page.made(record)
            run = record.get("run", {})
            seconds = record.get("work_seconds", run.get("seconds"))
            state = "quick run" if record.get("quick") else "done"
            rows.append((section.title, state, page.duration(seconds) if seconds else None, run.get("date")))
        parts.append((section.title, text))
    introduction = (
        "<p>Tables and figures of <i>DPA-2: a large atomic model as a multi-task learner</i> "
        "(arXiv 2312.15492) at a scale that one computer allows: other, smaller data sets, smaller models, "
        "far fewer steps. Compare ratios and trends with the paper's; absolute errors belong to other data."
        "</p>" + page.table(("", "state", "time", "date"), rows)
    )
    return page.page("DPA-2 with dpa2calc: the paper's tables and figures", introduction, parts)


if __name__ == "__main__":
    main()
