"""Configurations of heads: their fitting nets, and what is known of the data that they were trained on."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

from dpa2calc.files.limits import MOST_WIDTH
from dpa2calc.files.typed import check_fields

from .base import check, check_activation, check_widths


@dataclass(frozen=True, kw_only=True)
class FittingConfig:
    """The energy fitting net (docs/maths.md 7)."""

    neuron: tuple[int, ...] = (240, 240, 240)
    activation: str = "tanh"
    resnet_dt: bool = True
    numb_fparam: int = 0
    numb_aparam: int = 0
    dim_case_embd: int = 0
    default_fparam: tuple[float, ...] | None = None
    exclude_types: tuple[int, ...] = ()
    # vacuum removal: one entry per type, an energy (eV) or None; not removed where there is no energy
    atom_ener: tuple[float | None, ...] = ()

    def __post_init__(self) -> None:
        check_fields(self, "fitting")
        check_widths("fitting.neuron", self.neuron)
        for name in ("numb_fparam", "numb_aparam", "dim_case_embd"):
            check(0 <= getattr(self, name) <= MOST_WIDTH, f"fitting.{name}", getattr(self, name), "0 or more")
        default, n = self.default_fparam, self.numb_fparam
        fits = default is None or len(default) == n
        check(fits, "fitting.default_fparam", default, f"{n} numbers, as numb_fparam says")
        check_activation("fitting.activation", self.activation)

    @property
    def removes_vacuum(self) -> bool:
        """Whether some type has an energy in `atom_ener`."""
        return any(energy is not None for energy in self.atom_ener)


@dataclass(frozen=True, kw_only=True)
class HeadConfig:
    """One head: its name, what is known of its training data, and its fitting net.

    `elements` are those seen in training (empty: not known); `info` holds JSON-able extras such as
    test errors, data sources and licences. Files leave out the `kind` of heads of energies. A subclass has a
    `kind` and a `label`, the name of what it predicts of each atom, in `unit`, in data and results; `kinds`
    holds all that can be read, and `dpa2calc.model.heads.register` adds one.
    """

    kinds: ClassVar[dict[str, type[HeadConfig]]] = {}
    label: ClassVar[str] = ""  # "": energies with their derivatives
    unit: ClassVar[str] = "eV"

    kind: str = field(default="energy", metadata={"left_out": True})
    name: str = "Default"
    aliases: tuple[str, ...] = ()
    description: str = ""
    functional: str = ""
    elements: tuple[str, ...] = ()
    fitting: FittingConfig = field(default_factory=FittingConfig)
    info: dict[str, Any] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        check_fields(self, "head")
        known = ", ".join(f"{kind} ({cls.__name__})" for kind, cls in HeadConfig.kinds.items())
        check(HeadConfig.kinds.get(self.kind) is type(self), "head.kind", self.kind, known)

    def n_arrays(self, n_nets: int) -> int:
        """A lower bound of the number of arrays of weights, with so many nets of one kind."""
        return (len(self.fitting.neuron) + 1) * n_nets


HeadConfig.kinds["energy"] = HeadConfig
