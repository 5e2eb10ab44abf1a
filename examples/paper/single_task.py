"""Table S2 at the scale of one core: DPA-2, MACE, NequIP from scratch on one set at a time, equal CPU time.

    export DPA2CALC_PEERS_PYTHON=PEERS/bin/python      # has mace-torch and nequip
    python examples/paper/single_task.py --data data --minutes 30

DPA-2 is the architecture of `--model`; MACE and NequIP are small ones of similar cost (peers/worker.py). All
learn from all training frames. What is done is kept: the same command resumes.
"""

from __future__ import annotations

from common import begin, parser_for
from peers.jobs import Job, peers_python, results
from report import Cell, Table, write_report

SETS = ("SSE-PBE", "HfO2-PBE", "Cu-mlearn", "Mol-SPICE-drug", "Catalysis-PtCO")
JOBS = tuple(
    Job(title, model, "from scratch", all_frames=True)
    for title, model in (("DPA-2", "dpa2calc"), ("MACE", "mace"), ("NequIP", "nequip"))
)


def main() -> None:
    """Do what is missing, print one table."""
    parser = parser_for(__doc__, "single_task")
    parser.add_argument("--model", default="default", help="of this package: a name or a file")
    parser.add_argument("--sets", nargs="+", default=list(SETS), help="names in the collection")
    parser.add_argument("--minutes", type=float, default=30.0, help="CPU minutes of each training")
    parser.add_argument("--test-frames", type=int, default=100, help="at most, of each set")
    args = parser.parse_args()
    args.frames = 10**6
    if args.quick:
        args.sets, args.minutes, args.test_frames = args.sets[:1], 1 / 3, 8
    python = peers_python(parser)
    begin(args)
    found = {name: results(name, JOBS, args, python) for name in args.sets}
    titles = [job.title for job in JOBS]
    rows: list[tuple[Cell, ...]] = [
        (name, *(records[t].get(k) for k in ("energy_rmse", "force_rmse", "peak_mb") for t in titles))
        for name, records in found.items()
    ]
    columns = ("set", *(f"{quantity} {t}" for quantity in ("E", "F", "MB") for t in titles))
    text = write_report(
        args.output,
        "single_task",
        title=f"From scratch on one set, {args.minutes:g} CPU minutes of one core (Table S2)",
        tables=[
            Table("Test RMSE, energy (meV/atom) and force (meV/Å); peak memory (MB)", columns, tuple(rows))
        ],
        notes=[r["error"] for records in found.values() for r in records.values() if "error" in r],
        numbers=found,
        quick=args.quick,
    )
    print(text)


if __name__ == "__main__":
    main()
