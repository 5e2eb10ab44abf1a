"""Elastic and lattice constants of PBE itself, from strained perfect cells in the mlearn training sets.

    python examples/mlearn_elastic.py DATA_FOLDER [Cu Ni Mo Si Ge]
    python examples/mlearn_elastic.py DATA_FOLDER Si Ge --model default    # a model on the same cells
    python examples/mlearn_elastic.py DATA_FOLDER Si Ge --model default --minutes 10    # fine-tuned first

These are the numbers that a potential trained on the sets should give; `metals_and_semiconductors.py` lists
them. Shear strains count only where symmetry keeps the atoms free of force (fcc, bcc): in diamond the sets
hold clamped atoms, whose C44 is another quantity. The lattice constant comes from the energies: stresses of
Cu and Ni carry an offset (`dpa2calc.training.check_dataset` finds it), which slopes do not feel.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from paper.science import read_set
from paper.strained_cells import elastic_constants, lattice_constant

from dpa2calc import DPA2Calculator
from dpa2calc.training import FinetuneConfig, evaluate, finetune, load_registered


def fine_tuned(element: str, args: argparse.Namespace) -> Path:
    """The model, fine-tuned on the set's training frames, and its errors on the test frames."""
    name = f"{element}-mlearn"
    data, test = load_registered(name, args.folder), load_registered(name, args.folder, split="test")
    config = FinetuneConfig(minutes=args.minutes, clock="cpu", start_head=args.head)
    place = args.output / name
    tuned = finetune(args.model, data, config, output=place)
    print(element, evaluate(tuned.potential, test).errors)
    return place / "model.safetensors"


def main() -> None:
    """Print a line for each element."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="with Cu-mlearn, Ni-mlearn, ...")
    parser.add_argument("elements", nargs="*", default=["Cu", "Ni", "Mo", "Si", "Ge"])
    parser.add_argument("--model", help="also its constants from the same cells")
    parser.add_argument("--head", default="mlearn-PBE", help="of the model (default mlearn-PBE)")
    parser.add_argument("--minutes", type=float, help="CPU minutes of fine-tuning on the element's set")
    parser.add_argument("--output", type=Path, default=Path("runs/mlearn_elastic"), help="of fine-tunings")
    args = parser.parse_args()
    torch.set_num_threads(1)
    for element in args.elements:
        frames = read_set(args.folder / f"{element}-mlearn")
        found = elastic_constants(frames)
        least, own = lattice_constant(frames, found["C11"][0], found["C12"][0])
        constants = {name: (round(value, 1), n) for name, (value, n) in found.items()}
        edges = f"cell edge of the set {own:.3f} Å, of least energy {least:.3f} Å: {least / own - 1:+.2%}"
        print(element, constants, edges)
        if args.model:
            model, head = args.model, args.head
            if args.minutes:
                model, head = fine_tuned(element, args), None
            found = elastic_constants(frames, DPA2Calculator(model, head, dtype="float64"))
            print(element, model, {name: round(value, 1) for name, (value, _) in found.items()})


if __name__ == "__main__":
    main()
