"""`dpa2calc uncertainty MODEL`: measure how sure a trained model is, and write it into a file."""

from __future__ import annotations

import argparse
import dataclasses
import re
from pathlib import Path

from dpa2calc.cli.arguments.deferred import check_names
from dpa2calc.cli.arguments.output import check_files
from dpa2calc.cli.arguments.training import add_label_arguments, label_names
from dpa2calc.cli.arguments.written import write_values
from dpa2calc.errors import ConfigError

EXAMPLE = """example:
  dpa2calc uncertainty model.pt --head metal --data train.extxyz --validation test.extxyz
  dpa2calc uncertainty model.safetensors --data train.extxyz -o model-sure.safetensors
"""
DESCRIPTION = (
    "Measure the uncertainty of a head that has none: from the frames that it was trained on, scaled by its "
    "errors on frames held out. The file that is written is the whole model, with the uncertainty in it. "
    "`train`, `finetune` and `distill` do this at their end."
)
TABLE = "a row a head"
_ENDING = re.compile(r"\.(safetensors|pt|pth|dp|ya?ml)(\.xz)?$")  # names have dots: DPA-2.4
_COLUMNS = {
    "scale": "scale_eV",
    "force_error": "force_error_eV_per_A",
    "typical_force": "typical_force_eV_per_A",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the verb."""
    parser.add_argument("model", metavar="MODEL", help="a name or a checkpoint file, deepmd-kit's too")
    parser.add_argument(
        "--head", help="head of a multi-head model: its name, alias, or a unique ending of it"
    )
    parser.add_argument("--data", nargs="+", required=True, metavar="FILE", help="frames it was trained on")
    parser.add_argument(
        "--validation", nargs="+", metavar="FILE", help="labelled frames it was not trained on"
    )
    parser.add_argument("-o", "--output", metavar="FILE", help="default: NAME-uncertainty.safetensors")
    parser.add_argument("--no-progress", action="store_true", help="no progress bar on stderr")
    add_label_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Measure, write, and print what was used."""
    target = Path(args.output or f"{_ENDING.sub('', Path(args.model).name)}-uncertainty.safetensors")
    if target.suffix != ".safetensors":
        raise ConfigError(f"-o {args.output}: the ending must be .safetensors, the only format that keeps it")
    check_files(str(target))
    check_names(args.model, args.head)
    from dpa2calc.heads import resolve_head
    from dpa2calc.labels.names import LabelKeys
    from dpa2calc.model.rigidity import RigidityFacts
    from dpa2calc.store.checkpoint import save_checkpoint
    from dpa2calc.store.load import extra_facts, load_model
    from dpa2calc.training.data.dataset import Dataset
    from dpa2calc.training.data.sets import TrainingSet
    from dpa2calc.training.uncertainty import add_uncertainty

    potential = load_model(args.model)
    head = resolve_head(args.head, potential.config.heads, model=args.model)
    keys = LabelKeys(**label_names(args))
    data = Dataset.read(args.data, keys=keys)
    validation = Dataset.read(args.validation, keys=keys) if args.validation else None
    sets = {"data": TrainingSet(data, validation, head=head.name)}
    found = add_uncertainty(potential, sets, progress=not args.no_progress)
    for name, facts in found.items():
        print(f"{name}: uncertainty {facts}")
        if not facts.held_out:
            print(
                "the scale comes from frames that the model was trained on, so deviations are too small: "
                "give 10 or more labelled frames that it never saw with --validation"
            )
    extra = {**extra_facts(args.model), "uncertainty_added_to": Path(args.model).name}
    save_checkpoint(potential, target, extra_info=extra)
    print(f"wrote {target}")
    rows = [{"head": name, **dataclasses.asdict(facts)} for name, facts in found.items()]
    table = {_COLUMNS.get(name, name): [row[name] for row in rows] for name in (rows[0] if rows else ())}
    write_values(args, RigidityFacts, {"file": target, "heads": rows}, table)
    return 0
