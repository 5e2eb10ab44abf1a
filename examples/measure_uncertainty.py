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
from dpa2calc.store.checkpoint import checkpoint_info, save_checkpoint
from dpa2calc.store.registry import resolve_model
from dpa2calc.training import Dataset, TrainingSet, add_uncertainty, load_registered

# What students were distilled for; their labels are those of DFT, as a user would compare with.
STUDENTS = {
    "student-water": ("H2O-PBE0TS",),
    "student-sse": ("SSE-PBE",),
    "student-ferroelectric": ("FerroEle", "FerroEle-AIMD"),
    "student-perovskite": ("FerroEle", "FerroEle-AIMD"),
}


def sets_of(model: str, folder: str) -> dict[str, TrainingSet]:
    """Training frames, and every other test frame, of the sets that a model was trained on."""
    heads = load_model(model).config.heads
    names = {name: heads[0].name for name in STUDENTS.get(model, ())} or {
        name: head.name for head in heads for name in head.info.get("training", {}).get("frames", {})
    }
    elements = {head.name: set(head.elements) for head in heads}
    found = {}
    for name, head in names.items():
        train, test = (
            of_elements(load_registered(name, folder, split=split), elements[head])
            for split in ("train", "test")
        )
        if len(train):
            found[name] = TrainingSet(train, test.subset(range(0, len(test), 2)), head=head)
    return found


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
    args = parser.parse_args()
    for model in args.model:
        began = time.process_time()
        path = resolve_model(model)
        potential = load_model(model)
        facts = add_uncertainty(potential, sets_of(model, args.data))
        for head, fact in facts.items():
            print(
                f"{model} {head}: {fact}; {1e3 * fact.scale:.2f} meV, ridge {fact.ridge:g}, "
                f"forces x {fact.force_scale:.2f}"
            )
        file = Path(args.output or path)
        save_checkpoint(potential, file, extra_info=checkpoint_info(path).extra)
        print(
            f"{file}: {file.stat().st_size / 1e6:.2f} MB, {time.process_time() - began:.0f} s of CPU",
            flush=True,
        )


if __name__ == "__main__":
    main()
