"""The tables of a training file: a set, and the model."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any

from dpa2calc.files.options import at_least, refuse_idle
from dpa2calc.labels.names import LabelKeys
from dpa2calc.model.config import check
from dpa2calc.training.data.corrections import Corrections


def none_beside(section: Any, where: str, given: str, *names: str) -> None:
    """Raise a ConfigError for options of a section that have no effect where another one is given."""
    refuse_idle(section, f"beside {where}.{given}", *names, section=f"{where}.")


@dataclass(frozen=True, kw_only=True)
class SetSection:
    """One training set of a file: `[sets.NAME]`."""

    train: Annotated[tuple[str, ...], "files or folders with the training frames"]
    registered: Annotated[bool, "fill in what the package's collection knows of the set's name"] = False
    validation: Annotated[tuple[str, ...], "files with validation frames"] = ()
    validation_fraction: Annotated[float, "share of `train` held out if no validation file is named"] = 0.05
    split_seed: Annotated[int, "of the choice of validation frames; a run that resumes must keep it"] = 1
    by_group: Annotated[bool, "hold out whole groups (trajectories), not single frames"] = False
    test: Annotated[tuple[str, ...], "files on which the trained model is evaluated at the end"] = ()
    head: Annotated[str, "head of the model; the set's own name if not given"] = ""
    weight: Annotated[float, "proportional to the chance of being drawn"] = 1.0
    drop: Annotated[
        tuple[str, ...],
        "findings whose frames are left out, such as 'energy outlier'; of 'stress misfit' the stresses",
    ] = ()
    drop_frames: Annotated[
        tuple[int, ...], "frames left out, counted from 0 over all files of `train`, such as wrong labels"
    ] = ()
    drop_test_frames: Annotated[tuple[int, ...], "the same, of `test`"] = ()
    test_to_train: Annotated[
        tuple[int, ...], "frames of `test` to train on instead, such as near copies of training frames"
    ] = ()
    stress_order: Annotated[
        dict[str, str],
        "by group ('*' = all): what the numbers called xx yy zz yz xz xy are, such as 'xx yy zz xz yz xy'",
    ] = field(default_factory=dict)
    stress_factor: Annotated[dict[str, float], "by group: multiplies the stresses"] = field(
        default_factory=dict
    )
    stress_offset: Annotated[
        dict[str, float], "by group: GPa (positive = tension) that the stresses hold too much"
    ] = field(default_factory=dict)
    energy_shift_by_group: Annotated[dict[str, float], "by group: eV per atom added to the energies"] = field(
        default_factory=dict
    )
    max_frames: Annotated[int, "use a random sample of this size (0 = all)"] = 0
    energy_key: Annotated[str, "name of the energy in the files, such as REF_energy"] = "energy"
    forces_key: Annotated[str, "name of the forces, such as REF_forces ('' to leave them out)"] = "forces"
    stress_key: Annotated[str, "name of the stress ('' to leave it out)"] = "stress"
    virial_key: Annotated[str, "name of the virial, read where there is no stress"] = "virial"
    functional: Annotated[str, "DFT setting, for the model's card"] = ""
    description: Annotated[str, "what the set is, for the model's card"] = ""
    source: Annotated[str, "where it comes from, for the model's card"] = ""
    licence: Annotated[str, "for the model's card"] = ""

    def __post_init__(self) -> None:
        check(self.weight > 0, "weight", self.weight, "above 0")
        share = self.validation_fraction
        check(0 <= share < 1, "validation_fraction", share, "from 0 to below 1")
        at_least(self, 0, "split_seed", "max_frames")
        if self.validation:
            refuse_idle(self, "beside validation files", "validation_fraction", "split_seed", "by_group")
        if not self.validation_fraction:
            refuse_idle(self, "with validation_fraction = 0", "split_seed", "by_group")

    @property
    def corrections(self) -> Corrections:
        """What is done to labels whose fault is known."""
        return Corrections(
            stress_order=self.stress_order,
            stress_factor=self.stress_factor,
            stress_offset=self.stress_offset,
            energy_shift_by_group=self.energy_shift_by_group,
        )

    @property
    def keys(self) -> LabelKeys:
        """Names of the labels in the set's files."""
        return LabelKeys(
            energy=self.energy_key, forces=self.forces_key, stress=self.stress_key, virial=self.virial_key
        )


@dataclass(frozen=True, kw_only=True)
class ModelSection:
    """The model to train: `[model]`."""

    preset: Annotated[str, "descriptor by name: paper, small, medium, large, ..."] = "small"
    start: Annotated[
        str, "trained model to make larger, in place of a preset: `descriptor` adds to it, new sets get heads"
    ] = ""
    type_map: Annotated[tuple[str, ...], "elements; those of the data if not given"] = ()
    descriptor: Annotated[dict[str, object], "changes to the preset, by part: repinit, repformer, ..."] = (
        field(default_factory=dict)
    )
    fitting: Annotated[dict[str, object], "changes to the fitting net"] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.start:
            none_beside(self, "model", "start", "preset", "type_map")
