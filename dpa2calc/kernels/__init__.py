"""The seam between physics and speed: models call a few coarse operations, backends supply them.

    backend = make_backend("inference", potential.parameters())
    backend.embedded_moments(net, rows, kinds, factor)      # as every backend has it
    backend.why_not("embedded_moments", net)                # None, or why it is the plain formula here

`Reference` states each operation in a few lines of PyTorch. `Inference`, `Training` and `Expanded` have
faster twins of some, and use the formula, operation by operation, where a twin does not apply. A backend for
another kind of device is another class with the same methods. Operations take tensors and named tuples, never
modules, and nothing here imports the models.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import get_args

from torch import nn

from dpa2calc.errors import ConfigError

from .pairs import Neighbors, PairTable
from .reference import Mode, NeighborMaps, PairMaps, PairTerms, Reference, RepformerKind

__all__ = [
    "Mode",
    "NeighborMaps",
    "Neighbors",
    "PairMaps",
    "PairTable",
    "PairTerms",
    "Reference",
    "RepformerKind",
    "make_backend",
]


def make_backend(mode: str, parameters: Iterable[nn.Parameter] = ()) -> Reference:
    """The backend of a mode for a model with these weights, on their device.

    Raises:
        ConfigError: no such mode.
    """
    if mode not in get_args(Mode):
        allowed = ", ".join(map(repr, get_args(Mode)))
        raise ConfigError(f"the mode {mode!r} is not known; allowed: {allowed}")
    if mode == "inference":
        from .inference import Inference

        return Inference(parameters)
    if mode == "training":
        from .training import Training

        return Training(parameters)
    if mode == "hessian":
        from .expanded import Expanded

        return Expanded(parameters)
    return Reference(parameters)
