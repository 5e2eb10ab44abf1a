"""The arrays of a potential under deepmd-kit's names and in its shapes; one table for both directions.

Their names are those below `model.<branch>.atomic_model.` in a `.pt` file.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from dpa2calc.errors import CheckpointError
from dpa2calc.model.bridging import Bridging
from dpa2calc.model.potential import Potential

from .branch import Branch
from .option_reader import PRECISIONS

# How an array changes on the way: "slots" is stored once for every neighbour slot, (n_types, nsel, 4)
# for our (n_types, 4); "column" is (n_types, 1) and "bias" (1, n_types, 1) for our (n_types,).
Form = Literal["same", "slots", "column", "bias"]
# Parts of our names and of theirs, replaced one after the other.
_Names = tuple[tuple[str, str], ...]
_EVERY: _Names = (
    (".environment.mean", ".mean"),
    (".environment.std", ".stddev"),
    (".embedding.net.", ".filter_layers.networks.0."),
    (".embedding.strip.", ".filter_layers_strip.networks.0."),
    (".type_embedding.layer.", ".type_embedding.embedding.embedding_net.layers.0."),
)
_DESCRIPTORS: dict[str, _Names] = {
    "dpa2": (
        (".three_body.", ".repinit_three_body."),
        (".g1_shape.", ".g1_shape_tranform."),  # deepmd-kit's spelling
        (".repformer.", ".repformers."),
        (".g2_embedding.", ".g2_embd."),
        (".attn2.mapqk.", ".attn2g_map.mapqk."),
        (".attn2.mapv.", ".attn2_mh_apply.mapv."),
        (".attn2.head_map.", ".attn2_mh_apply.head_map."),
        (".attn2.norm.weight", ".attn2_lm.matrix"),
        (".attn2.norm.", ".attn2_lm."),
        (".attn2.ev.", ".attn2_ev_apply.head_map."),
    ),
    "dpa1": (
        (".repinit.attention.", ".se_atten.dpa1_attention.attention_layers."),
        (".repinit.", ".se_atten."),
        (".in_proj.", ".attention_layer.in_proj."),
        (".out_proj.", ".attention_layer.out_proj."),
        (".norm.weight", ".attn_layer_norm.matrix"),
        (".norm.", ".attn_layer_norm."),
    ),
    "deeppot_se": (("descriptor.", "descriptor.sea."), (".nets.", ".filter_layers.networks.")),
}
_HEAD: _Names = (
    ("fitting_net.nets.", "fitting_net.filter_layers.networks."),
    ("fitting_net.bias_atom_e.values", "fitting_net.bias_atom_e"),
    ("fitting_net.out_bias.values", "out_bias"),
)
_HEAD_FORMS: dict[str, Form] = {"fitting_net.bias_atom_e": "column", "out_bias": "bias"}
_COLLECTION = re.compile(r"^(descriptor\.[a-z_]+)\.filter_layers\.networks\.(\d+)\.")


@dataclass(frozen=True)
class Entry:
    """One parameter or buffer: our name within the potential, theirs, and the change of shape."""

    ours: str
    theirs: str
    form: Form = "same"
    nsel: int = 0


def descriptor_entries(potential: Potential) -> list[Entry]:
    """Entries of the descriptor, which all heads share."""
    c = potential.config.descriptor
    entries = []
    for ours in potential.state_dict():
        block, is_statistics, _ = ours.removeprefix("descriptor.").partition("environment.")
        if ours.startswith("descriptor."):
            theirs = _renamed(ours, _EVERY + _DESCRIPTORS[c.kind])
            # a block with a cutoff of its own has its own part of the configuration
            nsel = getattr(c, block.rstrip("."), c).nsel if is_statistics else 0
            entries.append(Entry(ours, theirs, "slots" if is_statistics else "same", nsel))
    return entries


def head_entries(potential: Potential, head: int) -> list[Entry]:
    """Entries of one head: fitting nets, parameter scales, and energy biases."""
    prefix, entries = f"heads.{head}.", []
    for ours in potential.state_dict():
        if ours.startswith(prefix):
            theirs = _renamed(ours.replace(prefix, "fitting_net.", 1), _HEAD)
            entries.append(Entry(ours, theirs, _HEAD_FORMS.get(theirs, "same")))
    return entries


def _renamed(name: str, table: _Names) -> str:
    for ours, theirs in table:
        name = name.replace(ours, theirs, 1)
    return name


def branch_arrays(potential: Potential, head: int) -> dict[str, Tensor]:
    """One head's arrays by the name below `atomic_model.`; each network once, no compression buffers."""
    ours = potential.state_dict()
    arrays = {}
    for entry in descriptor_entries(potential) + head_entries(potential, head):
        arrays[entry.theirs] = _shaped(ours[entry.ours].cpu(), entry)
    fitting = potential.config.heads[head].fitting
    if fitting.default_fparam is not None:
        arrays["fitting_net.default_fparam_tensor"] = torch.tensor(
            fitting.default_fparam, dtype=potential.dtype
        )
    arrays["out_std"] = out_std(potential, head)
    return arrays


def out_std(potential: Potential, head: int) -> Tensor:
    """deepmd-kit's spread of the labels, (1, n_types, 1): kept from an import, not used for energies."""
    stored = potential.config.heads[head].info.get("deepmd_out_std")
    n_types = potential.config.n_types
    values = [1.0] * n_types if stored is None else stored
    return torch.tensor(values, dtype=torch.float64).reshape(1, n_types, 1)


def _shaped(value: Tensor, entry: Entry) -> Tensor:
    if entry.form == "slots":
        return value.unsqueeze(1).expand(-1, entry.nsel, -1).clone()  # (n_types, nsel, 4)
    if entry.form == "column":
        return value.reshape(-1, 1).clone()
    return value.reshape(1, -1, 1).clone() if entry.form == "bias" else value.clone()


def state_dict_arrays(arrays: dict[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    """The arrays as a `.pt` file wants them: networks twice, and empty buffers for compression."""
    out = dict(arrays)
    for name, value in arrays.items():
        if ".networks." in name:
            out[name.replace(".networks.", "._networks.")] = value
        found = _COLLECTION.match(name)
        if found is not None:
            body, k = found.groups()
            for buffer in ("compress_info", "compress_data"):
                out[f"{body}.{buffer}.{k}"] = torch.zeros(0, dtype=dtype)
            if not body.endswith(".sea"):
                out[f"{body}.type_embd_data"] = torch.zeros(0, dtype=dtype)
    return out


def table_arrays(bridging: Bridging) -> dict[str, Tensor]:
    """tab_info (4,) = first r, spacing, intervals, types; tab_data (types, types, intervals, 4)."""
    c, coefficients = bridging.config, bridging.coefficients.detach().cpu()
    info = [c.r_min, c.spacing, float(c.n_intervals), float(coefficients.shape[0])]
    return {"tab_info": torch.tensor(info, dtype=torch.float64), "tab_data": coefficients.clone()}


def table_values(bridging: Bridging) -> np.ndarray:
    """The table on its grid (n_intervals + 1, 1 + pairs): column r, then the pairs of types row by row."""
    c = bridging.config
    pieces = bridging.coefficients.detach().cpu().numpy()
    n_types = pieces.shape[0]
    columns = [c.r_min + c.spacing * np.arange(c.n_intervals + 1)]
    for a in range(n_types):
        for b in range(a, n_types):
            # The value at the start of each piece, and at the end of the last.
            columns.append(np.append(pieces[a, b, :, 3], pieces[a, b, -1].sum()))
    return np.stack(columns, axis=1)


SHORT = {"float16": torch.float16, "half": torch.float16, "bfloat16": torch.bfloat16}


def weight_types(branch: Branch) -> set[torch.dtype]:
    """float64 and float32, and the shorter ones where the options ask for them."""
    types = {torch.float64, torch.float32}
    for section in ("descriptor", "fitting_net"):
        precision = (branch.params.get(section) or {}).get("precision")
        if isinstance(precision, str) and precision in SHORT:
            types.add(SHORT[precision])
        elif precision not in PRECISIONS:
            known = ", ".join(name for name in (*PRECISIONS, *SHORT) if name)
            raise CheckpointError(f"{section}.precision = {precision!r} is not supported; supported: {known}")
    return types


def check_weights(value: Tensor, name: str, types: set[torch.dtype]) -> None:
    """Refuse numbers that no network of deepmd-kit has: whole, complex, or not finite ones."""
    if value.dtype not in types:
        kind = str(value.dtype).removeprefix("torch.")
        raise CheckpointError(
            f"{name} is stored as {kind}, expected float64 or float32; the file was changed"
        )
    if not bool(value.isfinite().all()):
        raise CheckpointError(
            f"{name} holds numbers that are not finite; the file is damaged, or its training diverged"
        )
