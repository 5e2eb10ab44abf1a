"""One vector per element (docs/maths.md 2 and 9)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dpa2calc.model.electron_configuration import electron_configurations
from dpa2calc.model.layers import Dense, skip_width


class TypeEmbedding(nn.Module):
    """A linear embedding of the one-hot type, or of the element's electron configuration."""

    inputs: Tensor

    def __init__(self, type_map: tuple[str, ...], width: int, *, use_econf: bool, bias: bool):
        super().__init__()
        if use_econf:
            inputs = torch.as_tensor(electron_configurations(type_map))  # float64, cast with the model
        else:
            inputs = torch.eye(len(type_map), dtype=torch.float32)
        self.register_buffer("inputs", inputs, persistent=False)
        self.layer = Dense(inputs.shape[1], width, bias=bias)
        self.skip = skip_width(inputs.shape[1], width)

    def forward(self) -> Tensor:
        """All type vectors, (n_types, width)."""
        x = self.inputs
        out = self.layer(x)
        # A residual layer: when the sizes happen to fit, the input is added (docs/maths.md 2).
        if self.skip == 1:
            return out + x
        return out + torch.cat([x, x], dim=-1) if self.skip == 2 else out
