"""Labels whose fault is known, corrected where they are read: no frame is lost, no file is changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from fnmatch import fnmatchcase
from typing import TypeVar

import numpy as np
from ase.stress import full_3x3_to_voigt_6_stress, voigt_6_to_full_3x3_stress
from ase.units import GPa

from dpa2calc.errors import ConfigError, DataError
from dpa2calc.files.typed import check_fields

from .dataset import Dataset
from .frame import Frame

VOIGT = ("xx", "yy", "zz", "yz", "xz", "xy")
Value = TypeVar("Value")


@dataclass(frozen=True, kw_only=True)
class Corrections:
    """What to do to the labels of a set, by group of frames (`Frame.group`).

    The keys of each table are names of groups or patterns such as "Elastic*" or "*"; the first that matches
    counts. Order, factor and offset of a stress are taken in this order.

    Attributes:
        stress_order: what the six numbers called xx yy zz yz xz xy in the file are, such as
            "xx yy zz xz yz xy" where yz and xz were exchanged.
        stress_factor: multiplies the stresses.
        stress_offset: isotropic stress in GPa (ASE's sign, positive = tension) that the labels hold too
            much; it is subtracted.
        energy_shift_by_group: eV per atom, added to the energies.

    Example:
        >>> data = Corrections(stress_factor={"Elastic_*": 1000.0}).apply(data)
    """

    stress_order: Mapping[str, str] = field(default_factory=dict)
    stress_factor: Mapping[str, float] = field(default_factory=dict)
    stress_offset: Mapping[str, float] = field(default_factory=dict)
    energy_shift_by_group: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_fields(self)
        for pattern, order in self.stress_order.items():
            if sorted(order.split()) != sorted(VOIGT):
                raise ConfigError(
                    f"stress_order of {pattern!r} = {order!r} is not allowed; give the six names "
                    f"{' '.join(VOIGT)}, each once, in the order in which the file has them"
                )
        for pattern, factor in self.stress_factor.items():
            if factor == 0:
                raise ConfigError(
                    f"stress_factor of {pattern!r} = {factor} is not allowed; allowed: a number but 0"
                )

    def apply(self, data: Dataset, *, partial: bool = False) -> Dataset:
        """The set with corrected labels; the frames that need nothing are kept as they are.

        Args:
            partial: whether a pattern may match no group, as in the test frames of a set.

        Raises:
            DataError: a pattern matches no group of the set.
        """
        if not partial:
            self._require_groups(data)
        return replace(data, frames=tuple(map(self._corrected, data)))

    def _require_groups(self, data: Dataset) -> None:
        groups = {frame.group for frame in data}
        for option in fields(self):
            for pattern in getattr(self, option.name):
                if not any(fnmatchcase(group, pattern) for group in groups):
                    known = ", ".join(repr(group) for group in sorted(groups)[:20])
                    raise DataError(
                        f"{data.name}: {option.name} names the group {pattern!r}, which no frame belongs to; "
                        f"its groups are {known}"
                    )

    def _corrected(self, frame: Frame) -> Frame:
        changes: dict[str, object] = {}
        shift = _of_group(self.energy_shift_by_group, frame.group)
        if shift is not None and frame.energy is not None:
            changes["energy"] = frame.energy + shift * frame.n_atoms
        order = _of_group(self.stress_order, frame.group)
        factor = _of_group(self.stress_factor, frame.group)
        offset = _of_group(self.stress_offset, frame.group)
        if frame.virial is not None and (order, factor, offset) != (None, None, None):
            changes["virial"] = _virial(frame.virial, frame.volume, order, factor, offset)
        return replace(frame, **changes) if changes else frame  # type: ignore[arg-type]


def _of_group(table: Mapping[str, Value], group: str) -> Value | None:
    return next((value for pattern, value in table.items() if fnmatchcase(group, pattern)), None)


def _virial(
    virial: np.ndarray, volume: float, order: str | None, factor: float | None, offset: float | None
) -> np.ndarray:
    """(3, 3) virial, eV, after order, factor and offset (GPa) of its stress."""
    six = full_3x3_to_voigt_6_stress(virial)
    if order is not None:
        six = six[[order.split().index(name) for name in VOIGT]]
    matrix = np.asarray(voigt_6_to_full_3x3_stress(six)) * (1.0 if factor is None else factor)
    return matrix + (offset or 0.0) * GPa * volume * np.eye(3)


def moved(
    train: Dataset, test: Dataset, *, to_train: Sequence[int], drop_test: Sequence[int], where: str = ""
) -> tuple[Dataset, Dataset]:
    """Both sets after some test frames went to the end of the training frames, and some were left out.

    Args:
        to_train, drop_test: places in `test`, from 0.
        where: of the options, for messages.

    Raises:
        DataError: no such frame.
    """
    for option, places in (("test_to_train", to_train), ("drop_test_frames", drop_test)):
        outside = [i for i in places if not 0 <= i < len(test)]
        if outside:
            raise DataError(
                f"{where or test.name}: {option} names frame {outside[0]}; "
                f"the test frames are 0 to {len(test) - 1}"
            )
    gone = {*to_train, *drop_test}
    return (
        replace(train, frames=(*train.frames, *(test[i] for i in to_train))),
        test.subset(i for i in range(len(test)) if i not in gone),
    )
