"""`dpa2calc convert`: models between this package's files and deepmd-kit's."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from dpa2calc.cli.arguments.deferred import check_names
from dpa2calc.cli.arguments.output import check_files
from dpa2calc.cli.arguments.written import MODEL_FIELDS, write_values
from dpa2calc.cli.words import printable
from dpa2calc.errors import CheckpointError

if TYPE_CHECKING:
    from dpa2calc.model.potential import Potential

EXAMPLE = """example:
  dpa2calc convert model.pt model.safetensors
  dpa2calc convert default water.dp --head H2O-PBE0TS     # then: dp convert-backend water.dp water.pth
  dpa2calc convert DPA-2.4-7M.pt water.dp --head H2O-PD
"""
DESCRIPTION = (
    "Read a model of this package (.safetensors, or a name that `dpa2calc models` lists) or "
    "of deepmd-kit (.pt, .pth, .dp, .yaml) and write it as .safetensors, .pt or .dp. No code from the "
    "file is run."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the verb."""
    add = parser.add_argument
    add("source", metavar="IN", help="model file or name")
    add("target", metavar="OUT", help="ends in .safetensors, .pt or .dp (one head)")
    add("--head", help="keep only this head: its name, alias, or a unique ending of it")
    add("--dtype", choices=("float32", "float64"), help="precision (default: as it is)")


def run(args: argparse.Namespace) -> int:
    """Convert, and print what was written."""
    target = Path(args.target)
    if target.suffix not in (".safetensors", ".pt", ".dp"):
        hint = ""
        if target.suffix == ".pth":
            hint = f"; write {target.stem}.dp, then `dp convert-backend {target.stem}.dp {target.name}`"
        raise CheckpointError(f"OUT = {args.target} must end in .safetensors, .pt or .dp{hint}")
    check_files(args.target)
    check_names(args.source, args.head)
    import torch

    from dpa2calc.description import model_facts
    from dpa2calc.store.load import extra_facts, load_model

    dtype = {"float32": torch.float32, "float64": torch.float64, None: None}[args.dtype]
    potential = load_model(args.source, args.head, dtype=dtype)
    if target.suffix == ".safetensors":
        from dpa2calc.store.checkpoint import save_checkpoint

        extra = {**extra_facts(args.source), "converted_from": Path(args.source).name}
        save_checkpoint(potential, target, extra_info=extra)
    else:
        from dpa2calc.deepmd.write import write_deepmd

        write_deepmd(potential, target)
    print(printable(f"{target}: {describe(potential)}"))
    facts = {"file": target, "converted_from": args.source, **model_facts(potential)}
    write_values(args, ("convert", MODEL_FIELDS), facts)
    return 0


def describe(potential: Potential) -> str:
    """One line of what a model is."""
    config = potential.config
    n_parameters = sum(parameter.numel() for parameter in potential.parameters())
    heads = ", ".join(head.name for head in config.heads)
    rule = {"nearest": f"nearest {config.descriptor.nsel} neighbours", "all": "all neighbours"}
    return (
        f"{config.descriptor.kind}, {n_parameters} parameters "
        f"({str(potential.dtype).removeprefix('torch.')}), "
        f"{len(config.type_map)} elements, {rule[config.neighbor_rule]} within {config.cutoff:g} Å, "
        f"heads: {heads}"
    )
