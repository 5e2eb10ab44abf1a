"""Low-rank updates of the descriptor's linear maps (LoRA): few trainable numbers, merged at the end."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from dpa2calc.errors import ConfigError
from dpa2calc.model.layers import Dense
from dpa2calc.model.potential import Potential
from dpa2calc.store.checkpoint import blank_potential

_ORIGINAL = ".parametrizations.matrix.original"


class LowRankUpdate(nn.Module):
    """matrix + scale * down @ up, with `up` starting at 0 so that nothing changes at first."""

    def __init__(self, n_in: int, n_out: int, *, rank: int, scale: float, generator: torch.Generator):
        super().__init__()
        self.down = nn.Parameter(
            torch.randn(n_in, rank, generator=generator, dtype=torch.float32) / n_in**0.5
        )
        self.up = nn.Parameter(torch.zeros(rank, n_out, dtype=torch.float32))
        self.scale = scale

    def forward(self, matrix: Tensor) -> Tensor:
        """(n_in, n_out) -> (n_in, n_out)"""
        return matrix + self.scale * (self.down @ self.up)


def add_lora(potential: Potential, rank: int, *, scale: float = 1.0, seed: int = 0) -> set[str]:
    """Give the descriptor's linear maps low-rank updates.

    Maps too small to gain from it (one side not larger than 2 x rank) get none.

    Returns:
        Names of the new parameters.

    Raises:
        ConfigError: the rank is not positive, or no map is large enough.
    """
    if rank < 1:
        raise ConfigError(f"lora_rank = {rank} is not allowed; allowed: at least 1")
    generator = torch.Generator().manual_seed(seed)
    names = set()
    for place, module in list(potential.named_modules()):
        wanted = place.startswith("descriptor.") and isinstance(module, Dense)
        if wanted and min(module.matrix.shape) > 2 * rank:
            matrix = module.matrix
            update = LowRankUpdate(*matrix.shape, rank=rank, scale=scale, generator=generator).to(matrix)
            parametrize.register_parametrization(module, "matrix", update)
            names |= {f"{place}.parametrizations.matrix.0.{part}" for part in ("down", "up")}
    if not names:
        raise ConfigError(f"lora_rank = {rank}: no linear map of the descriptor is wider than {2 * rank}")
    return names


@torch.no_grad()
def merged(potential: Potential) -> Potential:
    """The potential itself, or a plain copy with the low-rank updates added to the matrices."""
    if not any(parametrize.is_parametrized(m, "matrix") for m in potential.descriptor.modules()):
        return potential
    state = {}
    for name, value in potential.state_dict().items():
        if name.endswith(_ORIGINAL):
            place = name.removesuffix(_ORIGINAL)
            module = potential.get_submodule(place)
            assert isinstance(module, Dense)
            state[f"{place}.matrix"] = module.matrix  # computed: the original and its update
        elif ".parametrizations.matrix." not in name:
            state[name] = value
    plain = blank_potential(potential.config, dtype=potential.dtype).to(next(potential.parameters()).device)
    plain.load_state_dict(state)
    return plain
