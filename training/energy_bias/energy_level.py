"""The energies' level of a model on new labels: least squares by element, on top of what it predicts.

Differs from `final_bias`, which removes what training leaves and so trusts the model: here the labels may
have any reference, as those of another code or of isolated atoms.
"""

from __future__ import annotations

import numpy as np

from dpa2calc.model.potential import Potential
from dpa2calc.training.data.dataset import Dataset
from dpa2calc.training.evaluate import predict_potential
from dpa2calc.training.statistics import energy_bias, set_energy_bias, spread_frames


def shift_energy_bias(
    potential: Potential, data: Dataset, *, frames: int = 200, seed: int = 0, device: str | None = None
) -> None:
    """Move the first head's energy of each element to what the frames say that have an energy.

    Args:
        frames: how many of them are predicted, a random sample.

    Raises:
        DataError: none has an energy.
    """
    labelled = data.subset([i for i, frame in enumerate(data) if frame.energy is not None])
    sample = labelled.subset(spread_frames(labelled, frames, seed=seed))
    predictions = predict_potential(potential, sample, head=0, device=device)
    differences = np.array([f.energy - p.energy for f, p in zip(sample, predictions)])  # type: ignore[operator]
    bias, _ = energy_bias(sample, potential.config.type_map, residuals=differences)
    old = potential.get_submodule("heads.0.out_bias").get_buffer("values").cpu().numpy()
    set_energy_bias(potential, 0, old + bias)
