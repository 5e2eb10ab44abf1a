"""The energy and its first two derivatives are continuous when an atom crosses any cutoff."""

import dataclasses

import numpy as np
import pytest
import torch
from architectures import DEEPPOT_SE, DPA1, small_dpa2, small_model
from ase import Atoms

from dpa2calc.calculator import DPA2Calculator
from dpa2calc.errors import ConfigError


def trimer(distance):
    """Two bonded atoms and a third one at `distance` from the first, which feels all three cutoffs."""
    return Atoms("CuOH", [[0, 0, 0], [-0.9, 0.8, 0.3], [distance, 0, 0]])


def slope(calc, distances):
    """dE/dr at each distance."""
    return np.array([-result["forces"][2, 0] for result in calc.evaluate([trimer(d) for d in distances])])


def cutoffs(potential):
    return potential.config.graph_spec.shells


def test_energy_and_force_are_continuous_at_every_cutoff(calc, potential):
    for cutoff in cutoffs(potential):
        below, above = calc.evaluate([trimer(cutoff - 1e-9), trimer(cutoff + 1e-9)])
        assert above["energy"] == pytest.approx(below["energy"], abs=1e-11)
        np.testing.assert_allclose(above["forces"], below["forces"], atol=1e-8)


STRIP = {"tebd_input_mode": "strip", "set_davg_zero": False}
ROUGH_DPA1 = {**STRIP, "smooth_type_embedding": False, "attn_layer": 0}


@pytest.mark.parametrize(
    ("descriptor", "named"),
    [
        (dataclasses.replace(DPA1, set_davg_zero=False), "set_davg_zero = False"),
        (dataclasses.replace(DPA1, **ROUGH_DPA1), "set_davg_zero = False"),
        (small_dpa2(repinit={"set_davg_zero": False}), "repinit.set_davg_zero = False"),
        (dataclasses.replace(small_dpa2(repinit=STRIP), smooth=False), "repinit.set_davg_zero = False"),
        (dataclasses.replace(DEEPPOT_SE, exclude_types=((0, 1),)), "descriptor.exclude_types = "),
        (dataclasses.replace(DPA1, **STRIP, exclude_types=((0, 1),)), "descriptor.exclude_types = "),
    ],
)
def test_what_would_jump_is_refused(descriptor, named):
    with pytest.raises(ConfigError, match=rf"{named}.*the energy would jump at the cutoff"):
        small_model(descriptor, "all")
    assert small_model(descriptor, "nearest").config.descriptor == descriptor  # models of deepmd-kit open


@pytest.mark.parametrize(
    "descriptor",
    [
        dataclasses.replace(DPA1, **STRIP),
        small_dpa2(repinit=STRIP),
        dataclasses.replace(small_dpa2(), exclude_types=((0, 1), (2, 1))),
        dataclasses.replace(DEEPPOT_SE, set_davg_zero=True, exclude_types=((0, 1), (2, 1))),
    ],
)
def test_options_that_do_not_jump(descriptor):
    model = small_model(descriptor, "all")
    if not getattr(descriptor, "repinit", descriptor).set_davg_zero:
        model.descriptor.repinit.environment.mean[:, 0] = torch.tensor([0.02, 0.05, 0.01])
    calc = DPA2Calculator(model, dtype="float64")
    for cutoff in cutoffs(model):
        below, above = calc.evaluate([trimer(cutoff - 1e-9), trimer(cutoff + 1e-9)])
        assert above["energy"] == pytest.approx(below["energy"], abs=1e-9)


def test_second_derivative_is_continuous_at_every_cutoff(calc, potential):
    """Slopes of the force from left and right agree in the limit: their difference falls with the step."""
    for cutoff in cutoffs(potential):
        jumps = []
        for step in (4e-3, 4e-4):
            at = slope(calc, cutoff + step * np.array([-1, 0, 1]))
            jumps.append(abs((at[2] - at[1]) - (at[1] - at[0])) / step)
        assert jumps[1] < 0.2 * jumps[0] + 1e-7


def test_the_test_would_see_a_kink(calc, potential):
    """The second derivative inside the cutoff is far above the limit used above."""
    cutoff = cutoffs(potential)[-1]
    at = slope(calc, cutoff - 0.8 + 4e-4 * np.array([-1, 0, 1]))
    assert abs(at[2] - at[0]) / 8e-4 > 1e-5


def test_separated_atoms_have_the_sum_of_their_energies(calc, potential):
    far = potential.config.cutoff + 0.01
    alone = [result["energy"] for result in calc.evaluate([trimer(far)[:2], trimer(far)[2:]])]
    # The second atom is still further away from the third than the first is.
    assert calc.evaluate([trimer(far)])[0]["energy"] == pytest.approx(sum(alone), abs=1e-11)


def test_density_beyond_nsel_is_smooth(architecture, calc, structure_of):
    """Atoms come into the cutoffs one after the other while the cell shrinks through nsel."""
    if architecture == "dpa2-nearest":
        pytest.skip("leaving neighbours out is what deepmd-kit's rule does")
    scales = np.linspace(1.2, 1.0, 25)
    cells = []
    for scale in scales:
        atoms = structure_of("compressed")
        atoms.set_cell(atoms.cell.array * scale, scale_atoms=True)
        cells.append(atoms)
    results = calc.evaluate(cells)
    energy = np.array([result["energy"] for result in results])
    pressure = np.array([result["stress"][:3].sum() * a.get_volume() for result, a in zip(results, cells)])
    # dE/d ln(scale) = trace(stress) V; Simpson's rule over each pair of steps must give the energy back.
    rate = pressure / scales
    step = scales[1] - scales[0]
    simpson = step / 3 * (rate[:-2:2] + 4 * rate[1:-1:2] + rate[2::2])
    np.testing.assert_allclose(np.diff(energy[::2]), simpson, atol=2e-4 * max(1, abs(simpson).max()))
