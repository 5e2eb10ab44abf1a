"""Several heads begin as one: their fitting nets are the same weights for the first steps of pre-training.

Energies of different DFT settings differ by little more than their element biases. A head of its own sees
only the batches of its sets, a few in a hundred; while all share one net, each batch trains it.
"""

from __future__ import annotations

import copy

from torch import nn

from dpa2calc.errors import ConfigError
from dpa2calc.model.potential import Potential


def tie_heads(potential: Potential) -> None:
    """Give every head the fitting net of the first one; energy biases stay their own.

    Raises:
        ConfigError: the heads' fitting nets are of different shapes.
    """
    first, pattern = potential.heads[0], potential.config.heads[0]
    for config, head in zip(potential.config.heads, potential.heads):
        if (config.kind, config.fitting) != (pattern.kind, pattern.fitting):
            raise ConfigError(
                f"shared_steps needs heads of one kind with equal fitting nets; {config.name!r} differs from "
                f"{pattern.name!r}; set shared_steps = 0 or make them equal"
            )
        head.nets = first.nets


def untie_heads(potential: Potential) -> None:
    """Give every head its own copy of the shared net."""
    for head in list(potential.heads)[1:]:
        nets = copy.deepcopy(head.nets)
        assert isinstance(nets, nn.ModuleList)
        head.nets = nets
