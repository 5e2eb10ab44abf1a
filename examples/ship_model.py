"""Make the file that the package ships from what a run of the default model, or of a student, has left.

    python examples/ship_model.py runs/default-67/stage-heads/model.safetensors --data data \\
        --or runs/default-67/model.safetensors
    python examples/ship_model.py student.safetensors --data data --model student-water

1. Functional, domain, sources, licences and aliases (the names of its sets) go into each head, from the
   collection. 2. The weights of the fitting nets are rounded, so that the wheel stays small, and energies of
   the elements are fitted to those of the weights as they were. 3. Errors on all test frames and the
   uncertainty are measured, with the rounded weights. 4. The file is written into the package, and the heads
   into its `models.json`.

Stop it at any time: the same command resumes after the last whole head, from `.shipped.safetensors`
beside the run's file. `--or` names a file with the same descriptor: a head of it is taken where its mean
absolute errors of energy and force on training frames, multiplied, are the smaller.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import json
import math
import re
import time
from collections.abc import Iterable
from pathlib import Path

import torch
from measure_uncertainty import STUDENTS, read_set

from dpa2calc import load_model
from dpa2calc.description import weights_digest
from dpa2calc.files.atomic import write_text
from dpa2calc.model.config import HeadConfig, ModelConfig
from dpa2calc.model.potential import Potential
from dpa2calc.store import registry
from dpa2calc.store.checkpoint import checkpoint_info, save_checkpoint
from dpa2calc.store.rounding import round_nets, round_uncertainties
from dpa2calc.training import (
    Dataset,
    TrainingSet,
    add_uncertainty,
    evaluate,
    load_registered,
    registered_sets,
)
from dpa2calc.training.data.dataset import spread_frames
from dpa2calc.training.energy_bias import shift_energy_bias
from dpa2calc.training.fit.predict import predict_potential
from dpa2calc.training.runs.report import with_figures

COMPARED = 30  # training frames of each set, that two heads are compared on
FRAMES = 40  # of each set, that energies are fitted to; ten times as many for heads of many elements
MOST_ATOMS = 20_000  # of the training frames of a head
PACKAGE = Path(registry.__file__).parent


def main() -> None:
    """Do what is missing, then write the file."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", type=Path, help="the run's model.safetensors, or a student's file")
    parser.add_argument("--data", required=True, help="folder of the collection")
    parser.add_argument("--or", dest="other", type=Path, help="a file whose heads are taken where better")
    parser.add_argument("--model", default="default", help="name of the model inside the package")
    parser.add_argument("-o", "--output", type=Path, help="file; else that of the model inside the package")
    parser.add_argument("--quick", action="store_true", help="a few frames of everything, to try it out")
    args = parser.parse_args()
    torch.set_num_threads(1)
    began = time.process_time()
    trained, work = load_model(args.file), args.file.with_suffix(".shipped.safetensors")
    potential, extra = begin(args, trained, work)
    for place in range(len(potential.heads)):
        if potential.rigidity(place) is None:
            finish_head(args, trained, potential, place)
            save_checkpoint(potential, work, extra_info=extra)
    round_uncertainties(potential)
    output = args.output or PACKAGE / "weights" / f"{args.model}.safetensors"
    save_checkpoint(potential, output, extra_info=extra)
    if args.output is None:
        write_heads(args.model, [head.name for head in potential.config.heads])
    print(f"{output}: {output.stat().st_size / 1e6:.2f} MB, {time.process_time() - began:.0f} s of CPU")


def begin(args: argparse.Namespace, trained: Potential, work: Path) -> tuple[Potential, dict[str, object]]:
    """The rounded model, with the heads that an earlier call finished, and what its file is to say."""
    if args.other is not None:
        take_better(trained, load_model(args.other), args.data)
    digest = weights_digest(trained)
    if work.exists() and checkpoint_info(work).extra.get("rounded_from") == digest:
        return load_model(work), dict(checkpoint_info(work).extra)
    extra = {**checkpoint_info(args.file).extra, "rounded_from": digest}
    potential = copy.deepcopy(trained)
    round_nets(potential)
    heads = potential.config.heads
    if args.model not in STUDENTS:
        heads = tuple(with_card(head) for head in heads)
    else:
        extra, heads = without_paths(args.model, extra, heads[0])
    potential.config = potential.config.with_heads(heads)
    return potential, extra


def without_paths(
    model: str, extra: dict[str, object], head: HeadConfig
) -> tuple[dict[str, object], tuple[HeadConfig, ...]]:
    """What the file of a student says of its making, without files that nobody else has."""
    if "/" not in f"{head.description}{head.info.get('distilled_from')}":
        return extra, (head,)
    kept = ("rounds", "frames", "errors_against_teacher", "seed", "versions")
    parts = {"distilled": extra.get("distilled"), "distillation": head.info.get("distillation")}
    short = {
        k: {n: part[n] for n in kept if n in part} for k, part in parts.items() if isinstance(part, dict)
    }
    told = f"distilled from a DPA-2 fine-tuned on frames of {' and '.join(STUDENTS[model])}"
    info = {k: v for k, v in head.info.items() if k != "distilled_from"}
    info["distillation"] = short["distillation"]
    return {**extra, "distilled": short["distilled"]}, (
        dataclasses.replace(head, description=told, info=info),
    )


def set_names(model: str, head: HeadConfig) -> tuple[str, ...]:
    """The sets whose labels a head was trained on, or that a student was distilled for."""
    return STUDENTS.get(model) or tuple(
        n for n, entry in registered_sets().items() if entry.head == head.name
    )


def with_card(head: HeadConfig) -> HeadConfig:
    """The head with what the collection says of its sets."""
    entries = [registered_sets()[name] for name in set_names("default", head)]
    data = {
        e.name: {"source": f"{e.source}; {e.citation}", "licence": e.licence or "none stated"}
        for e in entries
    }
    return dataclasses.replace(
        head,
        functional=entries[0].functional,  # sets of one head have the same
        description="; ".join(dict.fromkeys(e.domain for e in entries)),
        aliases=tuple(e.name for e in entries if e.name != head.name),
        info={**head.info, "data": data},
    )


def take_better(trained: Potential, other: Potential, data: str) -> None:
    """Put the heads of the other model into the trained one where they are better on training frames."""
    weights, others = trained.descriptor.state_dict(), other.descriptor.state_dict()
    if weights.keys() != others.keys() or any(not torch.equal(weights[k], others[k]) for k in weights):
        raise SystemExit("the two files differ in their descriptors: heads of one do not fit the other")
    heads = list(trained.config.heads)
    for place, head in enumerate(heads):
        parts = [load_registered(name, data) for name in set_names("default", head)]
        parts = [part.subset(spread_frames(part, COMPARED)) for part in parts]
        scores = []
        for model in (trained, other):
            errors = [evaluate(model, part, head=head.name).errors for part in parts]
            scores.append(sum(math.log(e.energy_mae * e.force_mae) for e in errors))
        if scores[1] < scores[0]:
            there = [h.name for h in other.config.heads].index(head.name)
            trained.heads[place], heads[place] = other.heads[there], other.config.heads[there]
            print(f"{head.name}: taken from the other file", flush=True)
    trained.config = trained.config.with_heads(tuple(heads))


def finish_head(args: argparse.Namespace, trained: Potential, potential: Potential, place: int) -> None:
    """Energies of the elements, test errors and uncertainty of one head."""
    began, head = time.process_time(), potential.config.heads[place]
    names = set_names(args.model, head)
    sets = {name: read_set(name, head, args.data) for name in names}
    keep_energies(trained, potential, place, (item.train for item in sets.values()), quick=args.quick)
    if args.model not in STUDENTS:
        potential.config = with_errors(args, potential, head, sets)
    most = 500 if args.quick else MOST_ATOMS
    fact = add_uncertainty(potential, sets, most_atoms=most)[head.name]
    found = potential.config.heads[place].info.get("test_errors", {})
    errors = ", ".join(
        f"{n} {e['energy_rmse']:.1f} / {e['force_rmse']:.1f}" for n, e in found.items() if n in sets
    )
    seconds = time.process_time() - began
    print(f"{head.name}: {errors}; {fact}, forces x {fact.force_scale:.2f}; {seconds:.0f} s", flush=True)


def keep_energies(
    trained: Potential, potential: Potential, place: int, parts: Iterable[Dataset], *, quick: bool
) -> None:
    """Fit energies of the elements of the rounded head to what the trained one says of training frames."""
    many = 10 if len(potential.config.heads[place].elements) > 20 else 1
    number = 4 if quick else FRAMES * many
    frames = [part[i] for part in parts for i in spread_frames(part, number)]
    told = predict_potential(trained, Dataset(tuple(frames)), head=place)
    labelled = [dataclasses.replace(f, energy=p.energy) for f, p in zip(frames, told)]
    shift_energy_bias(potential, Dataset(tuple(labelled)), head=place, frames=len(labelled))


def with_errors(
    args: argparse.Namespace, potential: Potential, head: HeadConfig, sets: dict[str, TrainingSet]
) -> ModelConfig:
    """The configuration with the test errors of one head."""
    tests = {name: load_registered(name, args.data, split="test") for name in sets}
    if args.quick:
        tests = {name: test.subset(spread_frames(test, 4)) for name, test in tests.items()}
    found = {name: evaluate(potential, test, head=head.name) for name, test in tests.items()}
    known = head.info.get("training", {})
    figures = with_figures(head, known.get("steps", 0), sets, found, known.get("seed", 0))
    heads = (figures if each.name == head.name else each for each in potential.config.heads)
    return potential.config.with_heads(tuple(heads))


def write_heads(model: str, names: list[str]) -> None:
    """Put the names of the heads of a model into the package's list of models."""
    path = PACKAGE / "models.json"
    text = path.read_text(encoding="utf-8")
    lines: list[str] = []
    line = ""
    for name in map(json.dumps, names):
        if len(line) + len(name) > 88:
            lines, line = [*lines, line.rstrip()], ""
        line += f"{name}, "
    listed = "\n        ".join([*lines, line.removesuffix(", ")])
    pattern = rf'("name": "{re.escape(model)}",[^{{}}]*?"heads": )\[[^\]]*\]'
    text, found = re.subn(pattern, lambda m: f"{m[1]}[\n        {listed}\n      ]", text)
    if found != 1:
        raise SystemExit(f"{path} has no heads of {model}: add the model there")
    write_text(path, text)


if __name__ == "__main__":
    main()
