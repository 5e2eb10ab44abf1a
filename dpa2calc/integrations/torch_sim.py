"""torch-sim (Python 3.12 or newer): a calculator as its model, for batched relaxation and molecular dynamics.

model = TorchSimModel(DPA2Calculator(head="mlearn-PBE", dtype="float64"))
final = torch_sim.optimize(structures, model, optimizer=torch_sim.Optimizer.fire)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from ase.stress import voigt_6_to_full_3x3_stress

from dpa2calc.calculator import DPA2Calculator
from dpa2calc.errors import ConfigError, MissingDependencyError

try:
    from torch_sim.models.interface import ModelInterface
except ImportError:  # which `TorchSimModel` says when it is made
    ModelInterface = torch.nn.Module

if TYPE_CHECKING:
    from torch_sim.state import SimState


class TorchSimModel(ModelInterface):
    """A `DPA2Calculator` with its head, as a `ModelInterface`.

    Positions, cells and results are float64; the precision of the network is the calculator's. All systems of
    a state are computed together. `energies` of atoms come along where the calculator has them.

    Args:
        calculator: of energies; its device is the model's.
        compute_stress: give `stress` (n_systems, 3, 3), eV/Å³; zero where no direction is periodic.

    Raises:
        MissingDependencyError: torch-sim is not installed.
        ConfigError: the head predicts something else than energies.
    """

    def __init__(self, calculator: DPA2Calculator, *, compute_stress: bool = True) -> None:
        if ModelInterface is torch.nn.Module:
            raise MissingDependencyError(
                "torch-sim is not installed: pip install 'dpa2calc[torch-sim]' (Python 3.12 or newer)"
            )
        super().__init__()
        if "energy" not in calculator.implemented_properties:
            raise ConfigError(f"{calculator!r} predicts no energies and forces; choose a head that does")
        self.calculator = calculator
        self._device = torch.device(str(calculator.parameters["device"]))
        self._dtype = torch.float64
        self._compute_stress, self._compute_forces = compute_stress, True

    @property
    def compute_stress(self) -> bool:
        """Whether `stress` is in the results; it costs nothing."""
        return self._compute_stress

    @compute_stress.setter
    def compute_stress(self, compute_stress: bool) -> None:
        self._compute_stress = compute_stress

    def forward(self, state: SimState, **_: object) -> dict[str, torch.Tensor]:
        """Energy (n_systems,) eV, forces (n_atoms, 3) eV/Å, stress; detached, in the state's dtype.

        Raises:
            StructureError, ElementError: the message begins with the system's number.
        """
        systems = state.to_atoms()
        # torch-sim has chosen how much fits the GPU's memory
        together = 1024 if self._device.type == "cpu" else max(int(state.n_atoms), 1)
        found = self.calculator.evaluate(systems, batch_atoms=together)

        def tensor(values: np.ndarray) -> torch.Tensor:
            return torch.from_numpy(values).to(state.positions)

        results = {
            "energy": tensor(np.array([result["energy"] for result in found])),
            "forces": tensor(np.concatenate([result["forces"] for result in found])),
        }
        if all("energies" in result for result in found):
            results["energies"] = tensor(np.concatenate([result["energies"] for result in found]))
        if self._compute_stress:
            stresses = [result.get("stress", np.zeros(6)) for result in found]
            results["stress"] = tensor(voigt_6_to_full_3x3_stress(np.array(stresses)))
        return results
