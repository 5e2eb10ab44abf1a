"""Measure the uncertainty of the models inside the package, and write it into their files.

    python examples/measure_uncertainty.py --data DATA            # all of them
    python examples/measure_uncertainty.py --data DATA --model student-water -o student-water.safetensors

DATA holds the collection, see `registered_sets`. Features come from training frames, the scale from every
other test frame; the rest of the test frames are those of the figure (`examples/uncertainty.py`).
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from dpa2calc import load_model
from dpa2calc.model.config import HeadConfig
from dpa2calc.store.checkpoint import checkpoint_info, save_checkpoint
from dpa2calc.store.registry import resolve_model
from dpa2calc.training import Dataset, TrainingSet, add_uncertainty, load_registered

# What students were distilled for; their labels are those of DFT, as a user would compare with.
STUDENTS = {
    "student-water": ("H2O-PBE0TS",),
    "student-sse": ("SSE-PBE",),
    "student-ferroelectric": ("FerroEle", "FerroEle-AIMD"),
    "student-perovskite": ("FerroEle", "FerroEle-AIMD"),
    "student-mgcu": ("Alloy-MgCu",),
    "student-3bpa": ("Mol-3BPA",),
}


def set_names(model: str, head: HeadConfig) -> tuple[str, ...]:
    """The sets that a head was trained on."""
    return STUDENTS.get(model) or tuple(head.info.get("training", {}).get("frames", {}))


def read_set(name: str, head: HeadConfig, folder: str) -> TrainingSet:
    """Training frames of a set, and every other test frame, of the elements that the head knows."""
    train, test = (
        of_elements(load_registered(name, folder, split=split), set(head.elements))
        for split in ("train", "test")
    )
    return TrainingSet(train, test.subset(range(0, len(test), 2)), head=head.name)


def of_elements(data: Dataset, elements: set[str]) -> Dataset:
    """The frames that have no other elements."""
    known = [i for i, frame in enumerate(data) if set(frame.atoms().symbols) <= elements]
    return data.subset(known)


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", required=True, help="folder of the collection")
    parser.add_argument("--model", nargs="+", default=["default", *STUDENTS])
    parser.add_argument("-o", "--output", help="file, with one model; else its own file inside the package")
    parser.add_argument("--atoms", type=int, default=20_000, help="of the training frames of a head")
    args = parser.parse_args()
    for model in args.model:
        began = time.process_time()
        path = resolve_model(model)
        potential, file = load_model(model), Path(args.output or path)
        for head in potential.config.heads:
            sets = {name: read_set(name, head, args.data) for name in set_names(model, head)}
            sets = {name: item for name, item in sets.items() if len(item.train)}
            (fact,) = add_uncertainty(potential, sets, most_atoms=args.atoms).values()
            print(
                f"{model} {head.name}: {fact}; {1e3 * fact.scale:.2f} meV, ridge {fact.ridge:g}, "
                f"forces x {fact.force_scale:.2f}",
                flush=True,
            )
            save_checkpoint(potential, file, extra_info=checkpoint_info(path).extra)
        size, seconds = file.stat().st_size / 1e6, time.process_time() - began
        print(f"{file}: {size:.2f} MB, {seconds:.0f} s of CPU", flush=True)


if __name__ == "__main__":
    main()
