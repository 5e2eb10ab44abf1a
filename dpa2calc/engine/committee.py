"""One model and head ready for inference, and several of them as a committee."""

from __future__ import annotations

import copy
import os
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from dpa2calc.errors import CheckpointError, ConfigError, DPA2CalcError
from dpa2calc.heads import resolve_head
from dpa2calc.kernels.tables import require_kernels, why_no_kernels
from dpa2calc.model.compression import compress, decompress
from dpa2calc.model.config import HeadConfig, ModelConfig
from dpa2calc.model.potential import Potential
from dpa2calc.store.checkpoint import blank_potential
from dpa2calc.structures.graph_spec import GraphSpec
from dpa2calc.validation import check_device

ModelLike = str | Path | Potential
Made = TypeVar("Made")
MemberLike = ModelLike | tuple[ModelLike | None, str | None]


@dataclass(frozen=True)
class Member:
    """A potential with frozen weights on its device, and the head to use.

    label: what the user called the model.
    """

    potential: Potential
    head_index: int
    label: str

    @property
    def config(self) -> ModelConfig:
        """The model's configuration."""
        return self.potential.config

    @property
    def head(self) -> HeadConfig:
        """The head's name, elements and so on."""
        return self.config.heads[self.head_index]

    @cached_property
    def spec(self) -> GraphSpec:
        """What the model wants of its graph."""
        return self.config.graph_spec

    @property
    def graph_device(self) -> torch.device:
        """Where graphs are built and sums are made: beside the weights, on the CPU for MPS."""
        device = self.potential.device
        return torch.device("cpu") if device.type == "mps" else device

    def __getstate__(self) -> dict[str, object]:
        # Activation functions are lambdas, which cannot be pickled: configuration and numbers can.
        weights = {key: value.cpu() for key, value in self.potential.state_dict().items()}
        return {
            "config": self.config,
            "dtype": self.potential.dtype,
            "device": str(self.potential.device),
            "weights": weights,
            "head_index": self.head_index,
            "label": self.label,
            "compressed": self.potential.compression is not None,
            "rigidities": [head.rigidity for head in self.potential.heads],
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        device = check_device(state["device"], state["dtype"])
        potential = blank_potential(state["config"], dtype=state["dtype"])
        potential.load_state_dict(state["weights"])
        for made, rigidity in zip(potential.heads, state.get("rigidities", ())):
            made.rigidity = rigidity
        if state.get("compressed"):
            potential, _ = compress(potential, device=device)
        object.__setattr__(self, "potential", freeze(potential, device))
        object.__setattr__(self, "head_index", state["head_index"])
        object.__setattr__(self, "label", state["label"])

    def __deepcopy__(self, memo: dict[int, object]) -> Member:
        return self  # never changed after it was made, so copies may share the weights


def freeze(potential: Potential, device: torch.device | str) -> Potential:
    """The potential on its device, for inference, without gradients of parameters (in place)."""
    return potential.to(device).eval().requires_grad_(False).use("inference")


def make_member(
    model: ModelLike,
    head: str | None,
    *,
    dtype: torch.dtype,
    device: torch.device,
    use_tables: bool | None = None,
) -> Member:
    """Load a model (or take a copy of a `Potential`) and find the head.

    use_tables: compress it, leave it as it is, or None: as the file says.

    Raises:
        ConfigError: it cannot be compressed, but has to be.
        CheckpointError, DownloadError: the model cannot be loaded.
        HeadError: the head is not one of the model's.
    """
    if isinstance(model, Potential):
        label = "a Potential"
        if any(value.is_meta for value in model.state_dict().values()):
            raise ConfigError(
                "the Potential has no numbers (it is on the device 'meta'); load its weights first"
            )
        potential = copy.deepcopy(model).to(dtype)  # the caller's own may be in training
    else:
        from dpa2calc.store.load import load_model

        label = str(model)
        try:
            potential = load_model(model, dtype=dtype)
        except CheckpointError as first:
            # Branches of a deepmd-kit file that do not share their descriptor are read one at a time.
            if head is None:
                raise
            try:
                potential = load_model(model, head, dtype=dtype)
            except CheckpointError as second:
                if str(second) == str(first):
                    raise first from None
                raise CheckpointError(f"{first}\nand its head {head!r} alone: {second}") from first
    chosen = resolve_head(head, potential.config.heads, model=label)
    potential = _with_tables(potential, use_tables, device)
    return Member(freeze(potential, device), potential.head_index(chosen.name), label)


def _with_tables(potential: Potential, wanted: bool | None, device: torch.device) -> Potential:
    """The potential compressed or not: as wanted, or as its maker wished where that is possible."""
    if wanted is False or (wanted is None and not potential.prefers_compression):
        return decompress(potential)
    if wanted is None and (reason := why_no_kernels(device)) is not None:
        warnings.warn(f"{reason}; it is evaluated without tables, several times slower", stacklevel=4)
        return decompress(potential)
    if potential.compression is not None:
        require_kernels(device)
        return potential
    return compress(potential, device=device)[0]


def make_members(
    model: ModelLike,
    head: str | None,
    committee: Iterable[MemberLike] | None,
    *,
    dtype: torch.dtype,
    device: torch.device,
    use_tables: bool | None = None,
) -> tuple[Member, ...]:
    """The calculator's own model first, then the further members of the committee.

    A member is a model, which uses the same head name, or a pair (model, head) where model None means
    the calculator's own model: `committee=[(None, "other head")]`.

    Raises:
        ConfigError: `committee` is not a list of these, or is empty.
    """
    first = make_member(model, head, dtype=dtype, device=device, use_tables=use_tables)
    if committee is None:
        return (first,)
    if isinstance(committee, (str, Path, Potential, np.ndarray, Mapping)) or not isinstance(
        committee, Iterable
    ):
        raise ConfigError(f"committee = {committee!r}; give a list of models or of (model, head) pairs")
    members = [first]
    for entry in committee:
        is_pair = isinstance(entry, tuple) and len(entry) == 2 and isinstance(entry[1], (str, type(None)))
        if not is_pair and not isinstance(entry, (str, os.PathLike, Potential)):
            raise ConfigError(
                f"committee has {entry!r}; give models or (model, head) pairs, head a name or None"
            )
        other, other_head = entry if isinstance(entry, tuple) else (entry, head)
        try:
            if other is None:
                chosen = resolve_head(other_head, first.config.heads, model=first.label)
                place = first.potential.head_index(chosen.name)
                members.append(Member(first.potential, place, first.label))
            else:
                made = make_member(other, other_head, dtype=dtype, device=device, use_tables=use_tables)
                members.append(made)
        except DPA2CalcError as error:
            # the same class and what it carries, with the option in front
            error.args = (f"committee has {first.label if other is None else other}: {error.args[0]}",)
            raise
    if len(members) == 1:
        raise ConfigError("committee = [] has no members; leave it out, or give at least one further model")
    return tuple(members)


def own_property(members: Sequence[Member], dispersion: object) -> str:
    """The property of heads without energies; refuses to mix them with what belongs to energies."""
    made = {member.head.name: member.head.label or "energies" for member in members}
    if len(set(made.values())) > 1:
        raise ConfigError(f"the members of a committee predict different things: {made}; choose one kind")
    if dispersion is not None:
        raise ConfigError(f"dispersion adds to energies, and these heads predict {made}; leave it out")
    return members[0].head.label


def each_spec(members: Sequence[Member], build: Callable[[GraphSpec], Made]) -> list[Made]:
    """`build(spec)` for each member; equal specs are built once."""
    made: dict[GraphSpec, Made] = {}
    for member in members:
        if member.spec not in made:
            made[member.spec] = build(member.spec)
    return [made[member.spec] for member in members]
