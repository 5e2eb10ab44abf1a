"""Table S5 at our scale: what each part of a repformer layer is worth.

    python examples/paper/ablation.py --data data
    python examples/paper/ablation.py --data data --sequential    # one after another, as in the paper
    python examples/paper/ablation.py --data data --quick

A small DPA-2 with every part of the paper's layer is trained on a few sets together, then again with one part
switched off, for the same number of steps, from the same seed, on the same batches. The table shows by how
much the average test errors rise.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from common import architecture, begin, load_test, pair, parser_for, recipe, require_steps, weighted_mean
from paper_numbers import TABLE_S5
from record import once
from report import Cell, Table, write_report

from dpa2calc.training import Dataset, TrainingSet, evaluate, pretrain, training_collection

SETS = ("SSE-PBE", "FerroEle", "Mol-3BPA", "Cu-mlearn", "HfO2-PBE")
QUICK_SETS = ("Mol-3BPA", "Cu-mlearn")
# The paper's layer, in options of RepformerConfig; the comparison run's model leaves out what costs most.
WHOLE = {
    "update_g1_has_conv": True,
    "update_g1_has_drrd": True,
    "update_g1_has_grrg": True,
    "update_g1_has_attn": True,
    "update_g2_has_g1g1": True,
    "update_g2_has_attn": True,
    "attn2_has_gate": True,
}
# The paper's names (section S7): f is the single-atom representation g1, g the pair-atom representation g2.
SINGLE_ATOM = {
    "conv": "update_g1_has_conv",
    "sym_f": "update_g1_has_drrd",
    "sym_g": "update_g1_has_grrg",
    "local_attn": "update_g1_has_attn",
}
PAIR = {"prod_f": "update_g2_has_g1g1", "gate": "attn2_has_gate", "attn": "update_g2_has_attn"}


def main() -> None:
    """Train what is missing, print the table."""
    args = options()
    begin(args)
    sets, _ = training_collection(args.data, names=args.sets, seed=args.seed)
    test = {name: load_test(name, args.data, args.test_frames) for name in sets}
    errors = {
        label: trained(label, off, sets, test, args) for label, off in variants(args.sequential).items()
    }
    table = table_s5(errors, {n: s.weight for n, s in sets.items()}, sequential=args.sequential)
    notes = [
        f"{args.layers} layers, {args.steps} steps on {', '.join(sets)}; weighted averages.",
        "Parts are removed "
        + ("one after another, as in the paper." if args.sequential else "one at a time."),
        "Without attn there is nothing to gate, so that row lacks both.",
        "The paper: 12 layers, 18 sets, 10^6 steps.",
    ]
    print(
        write_report(
            args.output,
            "ablation",
            title="Ablation of the repformer layer (Table S5)",
            tables=[table],
            notes=notes,
            numbers=errors,
            quick=args.quick,
        )
    )


def options() -> argparse.Namespace:
    """Options of the command line."""
    parser = parser_for(__doc__, "ablation")
    parser.add_argument("--steps", type=int, default=600, help="of every training")
    parser.add_argument("--layers", type=int, default=3, help="repformer layers")
    parser.add_argument("--sets", nargs="+", default=list(SETS))
    parser.add_argument("--test-frames", type=int, default=40, help="of each set (0 = all)")
    parser.add_argument("--sequential", action="store_true", help="remove the parts one after another")
    args = parser.parse_args()
    if args.quick:
        args.steps, args.layers, args.sets, args.test_frames = 3, 2, list(QUICK_SETS), 2
    return args


def variants(sequential: bool) -> dict[str, tuple[str, ...]]:
    """Which options are off in each training; "all parts" comes first.

    Example:
        >>> variants(True)["sym_g"]
        ('update_g1_has_conv', 'update_g1_has_drrd', 'update_g1_has_grrg')
    """
    out: dict[str, tuple[str, ...]] = {"all parts": ()}
    for channel in (SINGLE_ATOM, PAIR):
        gone: tuple[str, ...] = ()
        for label, switch in channel.items():
            gone = (*gone, switch) if sequential else (switch,)
            out[label] = gone
    return out


def trained(
    label: str,
    off: tuple[str, ...],
    sets: Mapping[str, TrainingSet],
    test: Mapping[str, Dataset],
    args: argparse.Namespace,
) -> dict[str, Any]:
    """Test errors by set of the model without some parts."""
    name = label.replace(" ", "-") + ("-sequential" if args.sequential and len(off) > 1 else "")
    layer = {**WHOLE, **dict.fromkeys(off, False), "nlayers": args.layers}
    config = recipe(args, steps=args.steps, shared_steps=0, batches_per_step=2).config

    def work() -> dict[str, Any]:
        model = architecture(sets, quick=args.quick, descriptor={"repformer": layer})
        result = pretrain(model, sets, config, output=args.output / name)
        errors = {
            n: evaluate(result.potential, data, head=sets[n].head, device=args.device).errors.to_dict()
            for n, data in test.items()
        }
        return {"steps": result.steps, "off": off, "errors": errors}

    path = args.output / f"{name}.json"
    record = once(path, work)
    require_steps(record, args.steps, path)
    return dict(record["errors"])


def table_s5(
    errors: Mapping[str, Mapping[str, Any]], weights: Mapping[str, float], *, sequential: bool
) -> Table:
    """Average errors, and by how much they rise: over all parts, or over the row above in the paper's way."""
    averages = {
        label: [
            weighted_mean([pair(e)[i] for e in found.values()], [weights[n] for n in found]) for i in (0, 1)
        ]
        for label, found in errors.items()
    }
    rows: list[tuple[Cell, ...]] = []
    before = averages["all parts"]
    for label, (energy, force) in averages.items():
        if label in ("conv", "prod_f") or not sequential:
            before = averages["all parts"]
        rises = [signed(now, then) for now, then in zip((energy, force), before)]
        paper = [signed(value, 0.0) for value in TABLE_S5.get(label, (None, None))]
        rows.append((label, energy, force, *(rises if label != "all parts" else (None, None)), *paper))
        before = [energy, force]
    columns = ("removed", "E", "F", "rise of E", "rise of F", "paper, E", "paper, F")
    return Table("Average test RMSE, energy (meV/atom) and force (meV/Å)", columns, tuple(rows))


def signed(value: float | None, reference: float | None) -> str | None:
    """The difference with its sign, or None."""
    return None if value is None or reference is None else f"{value - reference:+.1f}"


if __name__ == "__main__":
    main()
