"""Labels with a known fault, corrected as they are read."""

import numpy as np
import pytest
from ase.stress import voigt_6_to_full_3x3_stress
from ase.units import GPa

from dpa2calc.errors import ConfigError, DataError
from dpa2calc.training.data.checks.near_copies import near_copies
from dpa2calc.training.data.corrections import Corrections, moved
from dpa2calc.training.data.dataset import Dataset, Frame

CELL = np.array([[4.0, 0.0, 0.0], [1.0, 5.0, 0.0], [0.0, 0.5, 6.0]])


def frame(stress: np.ndarray, group: str = "", energy: float = -3.0) -> Frame:
    volume = float(np.linalg.det(CELL))
    return Frame(
        numbers=np.array([14, 14]),
        positions=np.array([[0.0, 0.0, 0.0], [1.4, 1.3, 1.2]]),
        cell=CELL,
        pbc=np.array([True] * 3),
        energy=energy,
        virial=-volume * stress,
        group=group,
    )


def corrected(stress: np.ndarray, **options: object) -> np.ndarray:
    (found,) = Corrections(**options).apply(Dataset((frame(stress),)))  # type: ignore[arg-type]
    assert found.stress is not None
    return found.stress


def test_each_component_lands_where_its_name_says():
    stored = voigt_6_to_full_3x3_stress([1.0, 2.0, 3.0, 4.0, 5.0, 6.0])  # called xx yy zz yz xz xy
    found = corrected(stored, stress_order={"*": "xx yy zz xy yz xz"})
    assert found == pytest.approx(voigt_6_to_full_3x3_stress([1.0, 2.0, 3.0, 5.0, 6.0, 4.0]))


def test_a_factor_comes_before_an_offset():
    stored = voigt_6_to_full_3x3_stress([1.0, 2.0, 3.0, 4.0, 5.0, 6.0]) * GPa
    found = corrected(stored, stress_factor={"*": 10.0}, stress_offset={"*": 2.0})
    assert found / GPa == pytest.approx(10 * stored / GPa - 2 * np.eye(3))


def test_an_offset_found_by_the_check_is_taken_off_as_it_was_printed():
    """Strained copies of an elastic crystal with a stress that holds 2.3 GPa too much."""
    from dpa2calc.training.data.checks.stress_misfit import stress_misfits

    bulk, frames = 100 * GPa, []
    for strain in np.linspace(-0.02, 0.02, 9):
        cell = np.eye(3) * 5.0 * np.exp(strain)
        volume, start = float(np.linalg.det(cell)), 125.0
        # E = B V0 (3 e)^2 / 2 of the logarithmic strain e, and its stress dE/dV
        energy = 0.5 * bulk * start * (3 * strain) ** 2
        stress = bulk * start * 3 * strain / volume + 2.3 * GPa
        frames.append(
            Frame(
                numbers=np.array([29]),
                positions=np.zeros((1, 3)),
                cell=cell,
                pbc=np.array([True] * 3),
                energy=energy,
                virial=-volume * stress * np.eye(3),
            )
        )
    data = Dataset(tuple(frames))
    (misfit,) = stress_misfits(data)
    assert misfit.offset[0] == pytest.approx(2.3, rel=0.02)
    assert stress_misfits(Corrections(stress_offset={"*": misfit.offset[0]}).apply(data)) == ()


def test_groups_are_corrected_apart_and_others_are_left_as_they_are():
    data = Dataset((frame(np.eye(3), "md 300K"), frame(np.eye(3), "elastic")))
    found = Corrections(energy_shift_by_group={"md*": 0.25}, stress_factor={"md*": 2.0}).apply(data)
    assert found[0].energy == pytest.approx(-3.0 + 2 * 0.25)
    assert found[0].stress == pytest.approx(2 * np.eye(3))
    assert found[1] is data[1]


def test_the_first_pattern_that_matches_counts():
    data = Dataset((frame(np.eye(3), "md hot"), frame(np.eye(3), "md cold")))
    found = Corrections(stress_factor={"md hot": 3.0, "md*": 2.0}).apply(data)
    assert [f.stress[0, 0] for f in found if f.stress is not None] == pytest.approx([3.0, 2.0])


def test_wrong_corrections_are_refused():
    with pytest.raises(ConfigError, match="'xx yy zz xy xy xz' is not allowed; give the six names"):
        Corrections(stress_order={"*": "xx yy zz xy xy xz"})
    for wrong in (-1.0, {"a": float("nan")}):  # a bare number was an AttributeError
        with pytest.raises(ConfigError, match=r"stress_factor.* is not allowed"):
            Corrections(stress_factor=wrong)
    with pytest.raises(ConfigError, match=r"stress_factor of 'a' = 0.0 is not allowed"):
        Corrections(stress_factor={"a": 0.0})
    data = Dataset((frame(np.eye(3), "md"),), name="Si")
    with pytest.raises(DataError, match=r"Si: stress_factor names the group 'mb', .* its groups are 'md'"):
        Corrections(stress_factor={"mb": 2.0}).apply(data)
    assert Corrections(stress_factor={"mb": 2.0}).apply(data, partial=True)[0] is data[0]


def test_near_copies_are_found_and_moved():
    rng = np.random.default_rng(3)

    def rattled(base: np.ndarray, size: float) -> Frame:
        positions = base + size * rng.uniform(-1, 1, base.shape) + rng.uniform(-9, 9, 3)
        wrapped = positions + rng.integers(-2, 3, (len(base), 3)) @ CELL
        return Frame(
            numbers=np.full(5, 6), positions=wrapped, cell=CELL, pbc=np.array([True] * 3), energy=0.0
        )

    bases = [rng.uniform(0, 4, (5, 3)) for _ in range(4)]
    train = Dataset(tuple(rattled(base, 0.0) for base in bases))
    test = Dataset((rattled(bases[2], 0.002), rattled(bases[1], 0.1), rattled(bases[0], 0.002)))
    assert near_copies(train, test) == {0: 2, 2: 0}
    more, fewer = moved(train, test, to_train=(0, 2), drop_test=())
    assert more.frames == (*train.frames, test[0], test[2]) and fewer.frames == (test[1],)
    with pytest.raises(DataError, match="test_to_train names frame 3; the test frames are 0 to 2"):
        moved(train, test, to_train=(3,), drop_test=())
