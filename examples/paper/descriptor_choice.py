"""Which descriptor to pre-train: several layers of DPA-2 from scratch, at equal CPU time.

    python examples/paper/descriptor_choice.py --data data --minutes 5
    python examples/paper/descriptor_choice.py --data data --minutes 5 30 --variants default pair-attention
    python examples/paper/descriptor_choice.py --data data --quick

Each descriptor is trained on each set alone, energies and forces, with as many steps as fit the time on one
thread. The steps come from a measurement at the start, which is kept, so that all seeds have the same number.
For silicon the elastic constants of the strained cells in the set are compared too: they hang on energies
that differ by a few meV an atom. Stop it at any time; the same command resumes.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import time
from typing import Any

from common import architecture, begin, load_test, parser_for
from record import once
from report import Cell, Table, write_report
from strained_cells import elastic_constants

from dpa2calc import DPA2Calculator
from dpa2calc.training import TrainConfig, evaluate, load_registered, train
from dpa2calc.training.data.readers import iread_atoms

SETS = ("Si-mlearn", "HfO2-PBE", "Mol-AcAc", "Mo-mlearn", "SSE-PBE")
ATTENTION = {"update_g2_has_attn": True, "attn2_has_gate": True}
VARIANTS: dict[str, dict[str, Any]] = {
    "default": {},
    "pair-attention": {"repformer": ATTENTION},
    "paper-layer": {"repformer": {**ATTENTION, "update_g1_has_attn": True, "update_g2_has_g1g1": True}},
    "pair-attention-3": {"repformer": {**ATTENTION, "nlayers": 3}},
    "pair-attention-4": {"repformer": {**ATTENTION, "nlayers": 4}},
    "pair-attention-6": {"repformer": {**ATTENTION, "nlayers": 6}},
    "pair-attention-narrow": {"repformer": {**ATTENTION, "attn2_hidden": 16, "attn2_nhead": 2}},
    "three-body": {"three_body": {"cutoff": 4.0}},
}


def main() -> None:
    """Measure steps, train what is missing, print the tables."""
    args = options()
    begin(args)
    seconds = {
        (variant, name): once(
            args.output / f"seconds-{variant}-{name}.json", lambda v=variant, n=name: cost(v, n, args)
        )
        for name in args.sets
        for variant in args.variants
    }
    found = {
        (variant, name, minutes, seed): trained(
            variant, name, minutes, seed, seconds[variant, name]["seconds"], args
        )
        for minutes in args.minutes
        for seed in args.seeds
        for name in args.sets
        for variant in args.variants
    }
    tables = [table(found, minutes, args) for minutes in args.minutes]
    print(
        write_report(
            args.output,
            "descriptor_choice",
            title="Descriptors from scratch at equal CPU time",
            tables=tables,
            notes=[f"One thread, {args.test_frames} test frames a set, seeds {args.seeds}: means over them."],
            numbers={" ".join(map(str, key)): value for key, value in found.items()},
            quick=args.quick,
        )
    )


def options() -> argparse.Namespace:
    """Options of the command line."""
    parser = parser_for(__doc__, "descriptor_choice")
    parser.add_argument("--minutes", type=float, nargs="+", default=[5.0], help="CPU time of each training")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--sets", nargs="+", default=list(SETS))
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--test-frames", type=int, default=100, help="of each set (0 = all)")
    args = parser.parse_args()
    if args.quick:
        args.minutes, args.seeds, args.sets, args.test_frames = [0.01], [1], ["Si-mlearn"], 2
        args.variants = args.variants[:2]
    return args


def config_for(steps: int, seed: int, args: argparse.Namespace) -> TrainConfig:
    """The options of every training."""
    return TrainConfig(
        steps=steps,
        batch_atoms=60 if args.quick else 110,
        learning_rate=1e-2,
        huber_delta=0.5,
        energy_prefactor_start=20,
        energy_prefactor_limit=400,
        force_prefactor_limit=100,
        virial_prefactor_start=0,
        virial_prefactor_limit=0,
        ema_decay=0.98,
        final_bias_frames=50,
        seed=seed,
        device=args.device,
    )


def cost(variant: str, name: str, args: argparse.Namespace) -> dict[str, float]:
    """CPU seconds of a step: the difference of a longer and a shorter training, least of two rounds."""
    data = load_registered(name, args.data)
    few, many, rounds = (1, 3, 1) if args.quick else (3, 23, 2)
    spent: dict[int, list[float]] = {few: [], many: []}
    for steps in (few, many) * rounds:
        place = args.output / "cost"
        shutil.rmtree(place, ignore_errors=True)
        started = time.process_time()
        model = architecture({data.name: data}, quick=args.quick, descriptor=VARIANTS[variant])
        train(model, data, config_for(steps, 1, args), output=place, progress=False)
        spent[steps].append(time.process_time() - started)
    shutil.rmtree(place)
    return {"seconds": max((min(spent[many]) - min(spent[few])) / (many - few), 1e-3)}


def trained(
    variant: str, name: str, minutes: float, seed: int, seconds: float, args: argparse.Namespace
) -> dict[str, Any]:
    """Test errors, steps and, for silicon, C11 - C12 (GPa) of one training."""
    label = f"{variant}-{name}-{minutes:g}min-seed{seed}"

    def work() -> dict[str, Any]:
        data = load_registered(name, args.data)
        model = architecture({data.name: data}, quick=args.quick, descriptor=VARIANTS[variant])
        steps = max(2, round(60 * minutes / seconds))
        started = time.process_time()
        result = train(model, data, config_for(steps, seed, args), output=args.output / label)
        spent = time.process_time() - started
        test = load_test(name, args.data, args.test_frames)
        found = evaluate(result.potential, test, device=args.device).errors.to_dict()
        record = {"steps": steps, "cpu_seconds": spent, **found}
        if name == "Si-mlearn":
            frames = list(iread_atoms(args.data / name / "train.extxyz.xz"))
            elastic = elastic_constants(frames, DPA2Calculator(result.potential, dtype="float64"))
            record["c11_minus_c12_gpa"] = elastic["C11"][0] - elastic["C12"][0]
        shutil.rmtree(args.output / label)
        return record

    return once(args.output / f"{label}.json", work)


def table(found: dict[tuple[Any, ...], dict[str, Any]], minutes: float, args: argparse.Namespace) -> Table:
    """Energy and force RMSE of each descriptor on each set, means over the seeds."""
    rows: list[tuple[Cell, ...]] = []
    for variant in args.variants:
        cells: list[Cell] = [variant]
        for name in args.sets:
            runs = [found[variant, name, minutes, seed] for seed in args.seeds]
            energy, force = (statistics.mean(r[key] for r in runs) for key in ("energy_rmse", "force_rmse"))
            text = f"{energy:.1f} / {force:.0f}"
            if name == "Si-mlearn":
                text += f" / {statistics.mean(r['c11_minus_c12_gpa'] for r in runs):.0f}"
            cells.append(f"{text} ({runs[0]['steps']})")
        rows.append(tuple(cells))
    title = f"{minutes:g} CPU minutes: energy (meV/atom) / force (meV/Å) [/ C11 - C12 (GPa)] (steps)"
    return Table(title, ("descriptor", *args.sets), tuple(rows))


if __name__ == "__main__":
    main()
