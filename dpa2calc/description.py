"""What a model is, in words and as plain data: `calc.describe()`, `available_heads`, `dpa2calc describe`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from dpa2calc.engine.committee import Member
from dpa2calc.engine.dispersion import Dispersion
from dpa2calc.files.identity import digest, text_digest
from dpa2calc.heads import list_heads
from dpa2calc.model.config import HeadConfig, ModelConfig, to_dict
from dpa2calc.model.potential import Potential
from dpa2calc.store.checkpoint import checkpoint_info, is_checkpoint


def model_config(model: str | Path | Potential) -> ModelConfig:
    """The configuration of a model; the weights of our own checkpoints are not read for it.

    Raises:
        CheckpointError, DownloadError: the model cannot be loaded.
    """
    if isinstance(model, Potential):
        return model.config
    from dpa2calc.store.load import load_model
    from dpa2calc.store.registry import resolve_model

    path = resolve_model(model)
    return checkpoint_info(path).config if is_checkpoint(path) else load_model(path).config


def settings(
    members: Sequence[Member], dispersion: Dispersion | None, *, device: torch.device, skin: float
) -> dict[str, object]:
    """What a calculator was made with, as plain data for provenance; the defaults of options are left out."""
    first = members[0]
    found: dict[str, object] = {
        "arch": "dpa2calc",
        "model": first.label,
        "head": first.head.name,
        "dtype": first.potential.precision,
        "device": str(device),
        "skin": skin,
    }
    if first.potential.compression is not None:
        found["compressed"] = True
    if len(members) > 1:
        found["committee"] = [f"{member.label}:{member.head.name}" for member in members]
    if dispersion is not None:
        found["dispersion"] = dataclasses.asdict(dispersion)
    return found


def calculator_part(
    members: Sequence[Member], dispersion: Dispersion | None, *, unseen: bool
) -> dict[str, object]:
    """What decides a calculator's numbers, for `calculator_identity`; weights enter as a hash."""
    found: dict[str, object] = {
        "models": [
            {
                "weights": weights_digest(member.potential),
                "config": text_digest(to_dict(member.config)),
                "head": member.head.name,
                "dtype": member.potential.precision,
                "compressed": member.potential.compression is not None,
            }
            for member in members
        ],
        "dispersion": None if dispersion is None else dataclasses.asdict(dispersion),
    }
    if unseen:
        found["allow_unseen_elements"] = True
    return found


def weights_digest(potential: Potential) -> str:
    """A short hash of all weights and statistics of a potential."""
    state = potential.state_dict()
    return digest(*(state[name].detach().cpu().numpy() for name in sorted(state)))


def available_heads(model: str | Path | Potential = "default") -> dict[str, HeadConfig]:
    """All heads of a model: name, aliases, functional, elements, training figures.

    Example:
        >>> available_heads("DPA-2.4-7M")["H2O_H2O_PD"].elements
        ('H', 'O')
    """
    return {head.name: head for head in model_config(model).heads}


def model_facts(potential: Potential) -> dict[str, Any]:
    """Sizes and options of a model and its heads as JSON-able data; lengths in Å."""
    config = potential.config
    d = config.descriptor
    in_heads = sum(p.numel() for p in potential.heads.parameters())
    return {
        "kind": d.title or d.kind,
        "cutoff": config.cutoff,
        "neighbor_rule": config.neighbor_rule,
        "blocks": [{"name": b.name, "cutoff": b.cutoff, "nsel": b.nsel, **b.facts} for b in d.blocks()],
        "descriptor_width": potential.descriptor.width,
        "parameters": sum(p.numel() for p in potential.parameters()),
        "parameters_a_head": in_heads // len(config.heads),
        "dtype": potential.precision,
        "type_map": list(config.type_map),
        "bridging": config.bridging is not None,
        "compressed": potential.prefers_compression,
        "heads": [
            {
                "name": head.name,
                "aliases": list(head.aliases),
                "functional": head.functional,
                "elements": list(head.elements),
                "description": head.description,
                "frame_parameters": head.fitting.numb_fparam,
                "atomic_parameters": head.fitting.numb_aparam,
                "predicts": head.label or "energies",
                "info": head.info,
            }
            for head in config.heads
        ],
    }


def describe(potential: Potential, label: str, *, head: str | None = None) -> str:
    """A page of text on a model: what it is made of, its heads, and what is known of their training.

    Args:
        label: what to call the model.
        head: details of this head only (its full name); None for all.
    """
    facts = model_facts(potential)
    rule = "all within the cutoff" if facts["neighbor_rule"] == "all" else "the nearest nsel"
    lines = [
        f"{label}: {facts['kind']}, {facts['parameters']:,} parameters "
        f"({facts['parameters_a_head']:,} of them a head), {facts['dtype']}",
        f"cutoff      {facts['cutoff']:g} Å; neighbours: {rule}",
    ]
    for block in facts["blocks"]:
        more = "".join(f", {value} {key.replace('_', ' ')}" for key, value in list(block.items())[3:])
        lines.append(f"  {block['name']:<11}{block['cutoff']:g} Å, nsel {block['nsel']}{more}")
    if facts["bridging"]:
        lines.append("  bridged to a pair table at short distances")
    if potential.compression is not None:
        lines.append("compressed  " + potential.compression.summary().replace("\n", "\n            "))
    elif facts["compressed"]:
        lines.append(
            "compressed  by the calculator: its radial embedding is tabulated when it is opened on a CPU"
        )
    lines.append(f"type map    {len(facts['type_map'])}: {' '.join(facts['type_map'])}")
    heads = [h for h in potential.config.heads if head in (None, h.name)]
    lines.append(f"{len(potential.config.heads)} head{'s' if len(potential.config.heads) > 1 else ''}")
    lines.append(list_heads(heads))
    lines += [f"{h.name} predicts {h.label} ({h.unit or 'no unit'}), no energies" for h in heads if h.label]
    for place, head_config in enumerate(potential.config.heads):
        rigidity = potential.rigidity(place)
        if rigidity is not None and head_config in heads:
            lines.append(f"{head_config.name}: uncertainty {rigidity.facts}")
    for chosen in heads:
        if chosen.info:
            lines.append(f"{chosen.name}:")
            lines.extend(_indented(chosen.info, "  "))
    plain = potential.plain_operations()
    lines += [f"slower      {name} by its plain formula: {reason}" for name, reason in plain.items()]
    return "\n".join(lines)


def _indented(values: Mapping[str, object], space: str) -> list[str]:
    """Nested facts, one per line; what is None is left out."""
    lines = []
    for key, value in values.items():
        if value is None:
            continue
        if isinstance(value, Mapping):
            lines += [f"{space}{key}:", *_indented(value, space + "  ")]
        elif isinstance(value, (list, tuple)):
            lines.append(f"{space}{key}: {', '.join(map(str, value))}")
        else:
            lines.append(f"{space}{key}: {f'{value:.4g}' if isinstance(value, float) else value}")
    return lines
