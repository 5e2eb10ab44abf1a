"""The arrays of a potential under deepmd-kit's names and in its shapes."""

from __future__ import annotations

import re

import torch
from torch import Tensor

from dpa2calc.deepmd.names import Entry, descriptor_entries, head_entries
from dpa2calc.model.potential import Potential

_COLLECTION = re.compile(r"^(descriptor\.[a-z_]+)\.filter_layers\.networks\.(\d+)\.")


def branch_arrays(potential: Potential, head: int) -> dict[str, Tensor]:
    """One head's arrays by the name below `atomic_model.`; each network once, no compression buffers."""
    ours = dict(potential.named_parameters()) | dict(potential.named_buffers())
    arrays = {}
    for entry in descriptor_entries(potential) + head_entries(potential, head):
        arrays[entry.theirs] = _shaped(ours[entry.ours].detach().cpu(), entry)
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
