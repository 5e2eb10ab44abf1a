"""One vector per element, from its number or its electron configuration (docs/maths.md 2 and 9)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from ase.data import atomic_numbers
from torch import Tensor, nn

from dpa2calc.errors import ElementError
from dpa2calc.model.config import DPA1Config, DPA2Config
from dpa2calc.model.layers import Dense, skip_width

_SHELLS = "1s 2s 2p 3s 3p 3d 4s 4p 4d 4f 5s 5p 5d 5f 6s 6p 6d 7s 7p".split()
_MADELUNG = "1s 2s 2p 3s 3p 4s 3d 4p 5s 4d 5p 6s 4f 5d 6p 7s 5f 6d 7p".split()
_ORBITALS = {"s": 1, "p": 3, "d": 5, "f": 7}
# Neutral atoms whose ground state differs from the Madelung filling: shells that change.
_EXCEPTIONS: dict[str, dict[str, int]] = {
    "Cr": {"4s": 1, "3d": 5},
    "Cu": {"4s": 1, "3d": 10},
    "Nb": {"5s": 1, "4d": 4},
    "Mo": {"5s": 1, "4d": 5},
    "Ru": {"5s": 1, "4d": 7},
    "Rh": {"5s": 1, "4d": 8},
    "Pd": {"5s": 0, "4d": 10},
    "Ag": {"5s": 1, "4d": 10},
    "La": {"4f": 0, "5d": 1},
    "Ce": {"4f": 1, "5d": 1},
    "Gd": {"4f": 7, "5d": 1},
    "Pt": {"6s": 1, "5d": 9},
    "Au": {"6s": 1, "5d": 10},
    "Ac": {"5f": 0, "6d": 1},
    "Th": {"5f": 0, "6d": 2},
    "Pa": {"5f": 2, "6d": 1},
    "U": {"5f": 3, "6d": 1},
    "Np": {"5f": 4, "6d": 1},
    "Cm": {"5f": 7, "6d": 1},
    "Ds": {"7s": 1, "6d": 9},
    "Rg": {"7s": 1, "6d": 10},
}


def occupation(symbol: str) -> dict[str, int]:
    """Electrons in each shell of the neutral atom's ground state."""
    left = atomic_numbers[symbol]
    filled: dict[str, int] = {}
    for shell in _MADELUNG:
        filled[shell] = min(left, 2 * _ORBITALS[shell[1]])
        left -= filled[shell]
    return filled | _EXCEPTIONS.get(symbol, {})


def electron_configurations(symbols: Sequence[str]) -> np.ndarray:
    """(len(symbols), 118) vectors of +-1 / sqrt(118): two numbers an orbital, -1 where it is empty.

    Raises:
        ElementError: a symbol is no chemical element up to Og.
    """
    rows = []
    for symbol in symbols:
        if not 0 < atomic_numbers.get(symbol, 0) <= 118:
            raise ElementError(
                f"{symbol!r} in the type map is no element, so it has no electron configuration"
            )
        filled = occupation(symbol)
        spins: list[int] = []
        for shell in _SHELLS:
            n_orbitals, electrons = _ORBITALS[shell[1]], filled[shell]
            for orbital in range(n_orbitals):
                # Hund: one electron an orbital first (second slot of the pair), then the first slot.
                spins += [1 if electrons > n_orbitals + orbital else -1, 1 if electrons > orbital else -1]
        rows.append(spins)
    return np.array(rows) / np.sqrt(118.0)


class TypeEmbedding(nn.Module):
    """A linear embedding of the one-hot type, or of the element's electron configuration."""

    inputs: Tensor

    def __init__(self, type_map: tuple[str, ...], config: DPA2Config | DPA1Config):
        super().__init__()
        if config.use_econf_tebd:
            inputs = torch.as_tensor(electron_configurations(type_map))  # float64, cast with the model
        else:
            inputs = torch.eye(len(type_map), dtype=torch.float32)
        self.register_buffer("inputs", inputs, persistent=False)
        self.layer = Dense(inputs.shape[1], config.tebd_dim, bias=config.use_tebd_bias)
        self.skip = skip_width(inputs.shape[1], config.tebd_dim)

    def forward(self) -> Tensor:
        """All type vectors, (n_types, width)."""
        x = self.inputs
        out = self.layer(x)
        # A residual layer: when the sizes happen to fit, the input is added (docs/maths.md 2).
        if self.skip == 1:
            return out + x
        return out + torch.cat([x, x], dim=-1) if self.skip == 2 else out
