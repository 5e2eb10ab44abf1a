"""Write the card of a trained model: data, licences, steps, errors by head on the test frames.

    python examples/model_card.py runs/default/model.safetensors > docs/default_model.md

Everything comes out of the checkpoint, whose heads carry it (`dpa2calc train` writes it there).
"""

from __future__ import annotations

import argparse
from typing import Any

from dpa2calc import load_model
from dpa2calc.labels.errors import percent
from dpa2calc.model.config import HeadConfig, ModelConfig
from dpa2calc.training import registered_sets

INTRODUCTION = """\
# The default model

`DPA2Calculator(head=HEAD)`; the start of `finetune("default", data, ...)`. One descriptor with a head for
each DFT setting, trained by `dpa2calc train` with `examples/default_model.toml`, then
`default_model_continued.toml`, `_final`, `_fourth`, `_fifth`, `_sixth`, `_seventh`, `_eighth` and `_ninth`.
This page is printed by `examples/model_card.py` from the checkpoint. The seventh and eighth stretch, of the
fitting nets alone, were added after a look at the test errors (25.3 meV/atom before them); the ninth, of two
heads, after stresses that contradict their energies were found among its training frames.

**Not for** structures, elements, temperatures or pressures far from a head's training sets; reactions, unless
the set holds them; comparing energies of different heads, which have different zeros. Look at the errors of
your head first, and fine-tune on your own frames. `Inorganic-PBE` (89 elements, 3386 frames) is a start for
fine-tuning and no more: its energies are off by tenths of an eV per atom.
"""

# What was found by looking at the test frames behind the largest errors.
WRONG_LABELS = {
    "InP-SNAP": "InP stored as four In atoms",
    "WBe-SNAP": "a defect of 500 eV in 256 Be atoms",
}
# Sets whose stresses `dpa2calc.training.check_dataset` finds to contradict their energies.
WRONG_STRESSES = ("Cu-mlearn", "Ni-mlearn", "WBe-SNAP")


def main() -> None:
    """Print the card."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoint")
    args = parser.parse_args()
    potential = load_model(args.checkpoint)
    config = potential.config
    print(INTRODUCTION)
    n_descriptor = sum(p.numel() for p in potential.descriptor.parameters())
    n_heads = sum(p.numel() for p in potential.heads.parameters())
    steps = {head.info.get("training", {}).get("steps") for head in config.heads}
    print(
        f"{n_descriptor:,} parameters in the descriptor, {n_heads:,} in {len(config.heads)} heads; "
        f"{len(config.type_map)} elements; {', '.join(map(str, sorted(steps)))} steps in a head's last "
        "stretch.\n"
    )
    print("![the sixth stretch](default_model_learning_curve.png)\n")
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
        "standard deviation of the labels. Weights are those of the collection; some stretches drew some "
        "sets more often.\n"
    )
    print("| head | set | frames | energy | share | force | share | virial | weight |")
    print("|---|---|---|---|---|---|---|---|---|")
    known, totals = registered_sets(), {"energy_rmse": 0.0, "force_rmse": 0.0}
    weight_sum = 0.0
    for head in config.heads:
        for name, errors in sets_of(head).items():
            weight = known[name].weight
            weight_sum += weight
            for key in totals:
                totals[key] += weight * errors[key]
            virial = errors.get("virial_rmse")
            shown = "-" if virial is None else f"{virial:.1f}"
            spreads = head.info.get("label_spread", {}).get(name, {})
            cells = [
                f"{errors[f'{kind}_rmse']:.1f} ({errors[f'{kind}_mae']:.1f}) | "
                + percent(errors[f"{kind}_rmse"] / spreads[kind] if spreads.get(kind) else None)
                for kind in ("energy", "force")
            ]
            row = (head.name, name, errors["n_frames"], *cells, shown, f"{weight:g}")
            print(f"| {' | '.join(map(str, row))} |")
    means = {key: value / weight_sum for key, value in totals.items()}
    print(f"| **weighted average** | | | {means['energy_rmse']:.1f} | | {means['force_rmse']:.1f} | | | |\n")
    print(
        f"Virials of {', '.join(WRONG_STRESSES)} measure the labels: these contradict the energies "
        '(training.md, "Stresses that do not fit").\n'
    )
    print_few_frames(config, means["energy_rmse"] * weight_sum, weight_sum)


def print_few_frames(config: ModelConfig, total: float, weight_sum: float) -> None:
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
    known = registered_sets()
    for name, few, rmse in found:
        total += known[name].weight * (few["rmse_without"] - rmse)
        print(
            f"- {name}: {few['frames']} of them {100 * few['share']:.0f} % of its square; "
            f"{few['rmse_without']:.1f} instead of {rmse:.1f} meV/atom without."
        )
    wrong = [f"{WRONG_LABELS[name]} in {name}" for name, _, _ in found if name in WRONG_LABELS]
    if wrong:
        print(f"\nLabels among them that cannot be right: {'; '.join(wrong)}.")
    left_out = sum(few["frames"] for _, few, _ in found)
    n_frames = sum(errors["n_frames"] for head in config.heads for errors in sets_of(head).values())
    print(
        f"\nWithout all these, {left_out} of {n_frames} frames, the weighted average of the energies is "
        f"{total / weight_sum:.1f} meV/atom.\n"
    )


def print_sources(config: ModelConfig) -> None:
    """Where the frames come from and under which licence."""
    print("## Data\n")
    print("| set | elements | functional | training frames | source | licence |")
    print("|---|---|---|---|---|---|")
    known = registered_sets()
    for head in config.heads:
        for name in sets_of(head):
            entry, frames = known[name], head.info["training"]["frames"][name]
            elements = " ".join(head.elements) if len(head.elements) < 20 else f"{len(head.elements)}"
            print(
                f"| {name} | {elements} | {entry.functional}, {entry.code} | {frames} "
                f"| {entry.source}; {entry.citation} | {entry.licence or 'none stated'} |"
            )


if __name__ == "__main__":
    main()
