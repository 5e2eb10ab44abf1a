"""torch-sim (Python 3.12 or newer): its own validation, and relaxation and dynamics beside ASE's and ours."""

import numpy as np
import pytest
import torch
from ase import units
from ase.build import bulk, molecule
from ase.data import chemical_symbols
from ase.md.velocitydistribution import MaxwellBoltzmannDistribution
from ase.md.verlet import VelocityVerlet

from dpa2calc import DPA2Calculator
from dpa2calc.errors import ConfigError, StructureError
from dpa2calc.model.config import DPA1Config, FittingConfig, HeadConfig, ModelConfig
from dpa2calc.model.potential import Potential

ts = pytest.importorskip("torch_sim", reason="torch-sim is not installed (it needs Python 3.12 or newer)")
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def calculator():
    """A small model with random weights that knows all elements."""
    config = ModelConfig(
        type_map=tuple(chemical_symbols[1:]),
        descriptor=DPA1Config(cutoff=4.0, nsel=60, neuron=(4, 8), axis_neuron=2, tebd_dim=4, attn_layer=0),
        heads=(HeadConfig(name="all", fitting=FittingConfig(neuron=(8,))),),
    )
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return DPA2Calculator(Potential(config), dtype="float64")


@pytest.fixture
def model(calculator):
    from dpa2calc.integrations.torch_sim import TorchSimModel

    return TorchSimModel(calculator)


@pytest.fixture(scope="module")
def copper():
    """The default model and crystals of copper that are out of shape, of several sizes."""
    cells = [bulk("Cu", a=3.6, cubic=True), bulk("Cu", a=3.55) * (2, 1, 1), bulk("Cu", a=3.7, cubic=True)]
    for seed, atoms in enumerate(cells):
        atoms.rattle(0.1, seed=seed)
    return DPA2Calculator(head="mlearn-PBE", dtype="float64"), cells


def test_its_own_validation(model):
    from torch_sim.models.interface import validate_model_outputs

    validate_model_outputs(model, CPU, torch.float64)


def test_its_consistency_with_the_calculator(model, calculator):
    from torch_sim.testing import SIMSTATE_GENERATORS, assert_model_calculator_consistency

    tight = {f"{kind}_{of}": 1e-9 for kind in ("energy", "force", "stress") for of in ("rtol", "atol")}
    assert len(SIMSTATE_GENERATORS) > 10
    for make in SIMSTATE_GENERATORS.values():
        state = make(CPU, torch.float64)
        model.compute_stress = bool(state.pbc.any())  # ASE's calculators have none where nothing is periodic
        assert_model_calculator_consistency(model, calculator, state, **tight)


def test_states_of_any_kind_give_what_the_calculator_gives(model, calculator):
    slab = bulk("Cu", cubic=True)
    slab.pbc = (True, True, False)
    for systems in ([slab, slab.copy()], [molecule("H2O"), molecule("CO2")]):
        state = ts.io.atoms_to_state(systems, CPU, torch.float64)
        before = {name: getattr(state, name).clone() for name in ("positions", "cell", "atomic_numbers")}
        found = model(state)
        assert all(torch.equal(getattr(state, name), value) for name, value in before.items())
        assert not any(value.requires_grad for value in found.values())
        for k, result in enumerate(calculator.evaluate(systems)):
            assert found["energy"][k].item() == pytest.approx(result["energy"], abs=1e-10)
            own = found["forces"][state.system_idx == k].numpy()
            np.testing.assert_allclose(own, result["forces"], atol=1e-10)
            if "stress" not in result:
                assert not found["stress"][k].any()
    # a transposed, so not contiguous, cell is the same cell
    state = ts.io.atoms_to_state([bulk("Ti")], CPU, torch.float64)
    turned = state.clone()
    turned.cell = state.cell.transpose(1, 2).contiguous().transpose(1, 2)
    assert not turned.cell.is_contiguous()
    assert torch.equal(model(turned)["stress"], model(state)["stress"])


def test_errors_name_the_system(model):
    near = molecule("H2")
    near.positions[1] = near.positions[0]
    state = ts.io.atoms_to_state([molecule("H2"), near], CPU, torch.float64)
    with pytest.raises(StructureError, match="structure 1"):
        model(state)


def test_a_head_of_something_else_is_refused():
    from dpa2calc.integrations.torch_sim import TorchSimModel

    class Charges:
        implemented_properties = ("charges",)

    with pytest.raises(ConfigError, match="predicts no energies and forces"):
        TorchSimModel(Charges())


def test_batched_relaxation_ends_where_ours_does(copper):
    from dpa2calc.applications import relax
    from dpa2calc.integrations.torch_sim import TorchSimModel

    calculator, cells = copper
    final = ts.optimize(
        cells,
        TorchSimModel(calculator),
        optimizer=ts.Optimizer.fire,
        convergence_fn=ts.generate_force_convergence_fn(0.005),
        max_steps=300,
    )
    for energy, start in zip(final.energy.tolist(), cells):
        atoms = start.copy()
        atoms.calc = calculator
        ours = relax(atoms, fmax=0.005, progress=False)
        assert ours.converged and energy == pytest.approx(ours.energy, abs=1e-4)


def test_batched_dynamics_are_those_of_ase(copper):
    from dpa2calc.integrations.torch_sim import TorchSimModel

    calculator, cells = copper
    state = ts.io.atoms_to_state(cells, CPU, torch.float64)
    moving = [atoms.copy() for atoms in cells]
    for seed, atoms in enumerate(moving):
        MaxwellBoltzmannDistribution(atoms, temperature_K=300, rng=np.random.default_rng(seed))
    model, dt = TorchSimModel(calculator), 2.0 * units.fs
    state = ts.nve_init(state, model, kT=0.0)
    # torch-sim's masses are its own table's
    start = [np.asarray(state.masses[state.system_idx == k]) for k in range(len(cells))]
    state.momenta = torch.from_numpy(np.concatenate([atoms.get_momenta() for atoms in moving]))
    for _ in range(10):
        state = ts.nve_step(state, model, dt=dt)
    for k, atoms in enumerate(moving):
        atoms.set_masses(start[k])
        atoms.calc = calculator
        with VelocityVerlet(atoms, timestep=dt) as dynamics:
            dynamics.run(10)
        where = state.positions[state.system_idx == k].numpy()
        np.testing.assert_allclose(where, atoms.positions, atol=1e-7)
        assert np.abs(where - cells[k].positions).max() > 0.01
