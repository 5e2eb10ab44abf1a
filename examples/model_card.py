"""Write the card of a trained model: data, licences, steps, errors by head on the test frames.

    python examples/model_card.py default > docs/default_model.md

Everything comes out of the checkpoint, whose heads carry it (`dpa2calc train` writes it there).
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Collection
from pathlib import Path
from typing import Any

from dpa2calc import load_model
from dpa2calc.files.options import read_toml
from dpa2calc.labels.errors import percent
from dpa2calc.model.config import HeadConfig, ModelConfig
from dpa2calc.training import registered_sets

INTRODUCTION = """\
# The default model

`DPA2Calculator(head=HEAD)`; the start of `finetune("default", data, ...)`. One descriptor with a head for
each DFT setting, trained by `dpa2calc train examples/default_model.toml`, which starts from the model of
29 sets that the package shipped before: 16 000 steps of all weights, then 1107 of each head alone. A head was
left as it was where the second stretch did not pay on its training frames, the nets were rounded, and errors
and uncertainty measured, by `examples/ship_model.py`. This page is printed by `examples/model_card.py` from
the checkpoint.

**Not for** structures, elements, temperatures or pressures far from a head's training sets; reactions, unless
the set holds them; comparing energies of different heads, which have different zeros. Look at the errors of
your head first, and fine-tune on your own frames. `Inorganic-PBE` (89 elements, {inorganic} frames) is a
start for fine-tuning and no more: its energies are off by tenths of an eV per atom.
"""

# The 29 sets of the first model, for averages that can be compared with its: those of this file, and four.
FIRST = Path(__file__).parent / "paper" / "comparison.toml"
FIRST_TOO = ("FerroEle-AIMD", "H2O-DPLR", "Alloy-LiAl", "Mol-AcAc")
LEAST = 4.0  # times better than zero forces, or the set is named
# Sets of one molecule each, whose published errors are per molecule.
MOLECULES = ("Mol-AcAc", "Mol-3BPA", "Mol-rMD17-aspirin")
# What was found by looking at the test frames behind the largest errors.
WRONG_LABELS = {
    "InP-SNAP": "InP stored as four In atoms",
    "WBe-SNAP": "a defect of 500 eV in 256 Be atoms",
}
# Why some sets cannot be learned well.
NOISY = {
    "SemiCond-GeTe": "noisy labels of Car-Parrinello dynamics",
    "Inorganic-Alexandria1k": "relaxed crystals, with nearly no forces",
    "Inorganic-MPtrj1k": "crystals near their minima, of 89 elements",
    "Mol-Transition1x": "paths of reactions, with small forces",
}
STRESS_OPTIONS = ("stress_order", "stress_factor", "stress_offset")


def main() -> None:
    """Print the card."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoint")
    args = parser.parse_args()
    potential = load_model(args.checkpoint)
    config = potential.config
    (inorganic,) = (head for head in config.heads if head.name == "Inorganic-PBE")
    print(INTRODUCTION.replace("{inorganic}", str(sum(inorganic.info["training"]["frames"].values()))))
    n_descriptor = sum(p.numel() for p in potential.descriptor.parameters())
    n_heads = sum(p.numel() for p in potential.heads.parameters())
    steps = Counter(head.info.get("training", {}).get("steps") for head in config.heads)
    told = ", ".join(f"{number} steps for {count} heads" for number, count in sorted(steps.items()))
    print(
        f"{n_descriptor:,} parameters in the descriptor, {n_heads:,} in {len(config.heads)} heads; "
        f"{len(config.type_map)} elements; {told}.\n"
    )
    print("![errors against steps, of the first 16 000](default_model_learning_curve.png)\n")
    print_errors(config)
    print_sources(config)


def sets_of(head: HeadConfig) -> dict[str, Any]:
    """Test errors of the head's sets by name."""
    return head.info.get("test_errors", {})


def print_errors(config: ModelConfig) -> None:
    """Errors by set, and their average with the weights of the training."""
    print("## Errors on the test frames\n")
    print(
        "RMSE (MAE); energy in meV/atom, force in meV/Å, virial in meV/atom. Shares are RMSE over the "
        "standard deviation of the labels. Weights are those of the collection.\n"
    )
    print("| head | set | frames | energy | share | force | share | virial | weight |")
    print("|---|---|---|---|---|---|---|---|---|")
    known = registered_sets()
    for head in config.heads:
        for name, errors in sets_of(head).items():
            virial = errors.get("virial_rmse")
            shown = "-" if virial is None else f"{virial:.1f}"
            spreads = head.info.get("label_spread", {}).get(name, {})
            cells = [
                f"{errors[f'{kind}_rmse']:.1f} ({errors[f'{kind}_mae']:.1f}) | "
                + percent(errors[f"{kind}_rmse"] / spreads[kind] if spreads.get(kind) else None)
                for kind in ("energy", "force")
            ]
            row = (head.name, name, errors["n_frames"], *cells, shown, f"{known[name].weight:g}")
            print(f"| {' | '.join(map(str, row))} |")
    first = {*read_toml(FIRST)["sets"], *FIRST_TOO}
    for title, names in (("all sets", set(known)), ("the 29 sets of the first model", first)):
        energy, force = (average(config, names, key) for key in ("energy_rmse", "force_rmse"))
        print(f"| **weighted average**, {title} | | | {energy:.1f} | | {force:.1f} | | | |")
    print()
    corrected = [n for n, entry in known.items() if any(o in entry.corrections for o in STRESS_OPTIONS)]
    print(
        f"Stresses of {', '.join(corrected)} were corrected before training, as they contradicted the "
        'energies (training.md, "Stresses that do not fit").\n'
    )
    print_molecules(config)
    print_rough(config)
    print_few_frames(config, first)


def average(config: ModelConfig, names: Collection[str], key: str) -> float:
    """A test error, weighted as in training, over the sets of these names."""
    known = registered_sets()
    found = [(known[n].weight, e[key]) for h in config.heads for n, e in sets_of(h).items() if n in names]
    return sum(weight * error for weight, error in found) / sum(weight for weight, _ in found)


def print_molecules(config: ModelConfig) -> None:
    """Sets of one molecule in the units and by the groups of frames of published tables."""
    print("Per molecule, all test frames and by temperature: RMSE (MAE).\n")
    print("| set | frames | energy, meV | force, meV/Å |")
    print("|---|---|---|---|")
    for head in config.heads:
        for name in MOLECULES:
            if name not in sets_of(head):
                continue
            groups = head.info.get("errors_by_group", {}).get(name, {})
            for group, e in {"all": sets_of(head)[name], **groups}.items():
                size = e["n_atoms"] / e["n_frames"]
                energy = f"{size * e['energy_rmse']:.0f} ({size * e['energy_mae']:.0f})"
                force = f"{e['force_rmse']:.0f} ({e['force_mae']:.0f})"
                print(f"| {name} | {e['n_frames']}, {group} | {energy} | {force} |")
    print()


def print_rough(config: ModelConfig) -> None:
    """Sets whose forces are not known `LEAST` times better than by zero forces."""
    lines = []
    for head in config.heads:
        for name, errors in sets_of(head).items():
            spread = head.info.get("label_spread", {}).get(name, {}).get("force")
            if spread and spread < LEAST * errors["force_rmse"]:
                why = f": {NOISY[name]}" if name in NOISY else ""
                lines.append((spread / errors["force_rmse"], name, why))
    if not lines:
        return
    print(f"Forces that are less than {LEAST:g} times better than zero forces, worst first:\n")
    for factor, name, why in sorted(lines):
        print(f"- {name}, {factor:.1f} times{why}")
    print()


def print_few_frames(config: ModelConfig, names: Collection[str]) -> None:
    """Sets whose energy error is that of a few test frames, and what is left without these."""
    found = [
        (name, few["energy"], errors["energy_rmse"])
        for head in config.heads
        for name, errors in sets_of(head).items()
        if "energy" in (few := head.info.get("few_frames", {}).get(name, {}))
    ]
    if not found:
        return
    print("Few test frames make most of the energy error of some sets:\n")
    known, change = registered_sets(), 0.0
    for name, few, rmse in found:
        if name in names:
            change += known[name].weight * (few["rmse_without"] - rmse)
        print(
            f"- {name}: {few['frames']} of them {100 * few['share']:.0f} % of its square; "
            f"{few['rmse_without']:.1f} instead of {rmse:.1f} meV/atom without."
        )
    wrong = [f"{WRONG_LABELS[name]} in {name}" for name, _, _ in found if name in WRONG_LABELS]
    if wrong:
        print(f"\nLabels among them that cannot be right: {'; '.join(wrong)}.")
    left_out = sum(few["frames"] for _, few, _ in found)
    n_frames = sum(errors["n_frames"] for head in config.heads for errors in sets_of(head).values())
    change /= sum(known[name].weight for name in names)
    print(
        f"\nWithout all these, {left_out} of {n_frames} frames, the weighted average of the energies of the "
        f"29 sets of the first model is {average(config, names, 'energy_rmse') + change:.1f} meV/atom.\n"
    )


def print_sources(config: ModelConfig) -> None:
    """Where the frames come from and under which licence."""
    print("## Data\n")
    print("| set | elements of the head | functional | training frames | source | licence |")
    print("|---|---|---|---|---|---|")
    known = registered_sets()
    for head in config.heads:
        for name in sets_of(head):
            entry, frames = known[name], head.info["training"]["frames"][name]
            elements = " ".join(head.elements) if len(head.elements) < 20 else f"{len(head.elements)}"
            functional = ", ".join(filter(None, (entry.functional, entry.code)))
            print(
                f"| {name} | {elements} | {functional} | {frames} "
                f"| {entry.source}; {entry.citation} | {entry.licence or 'none stated'} |"
            )


if __name__ == "__main__":
    main()
