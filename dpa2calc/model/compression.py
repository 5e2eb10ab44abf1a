"""Compressed models: the embedding net of each type pair as a table, looked up while neighbours are summed.

    fast, report = compress(potential)
    print(report.summary())

Applies to DPA-1 without attention layers, DeepPot-SE, and the repinit block of DPA-2, in concat and strip
mode. The result is a `Potential` in the mode "inference"; other modes leave the tables out. Tables are
made from the weights in a second, or five for many elements, and are no part of a checkpoint.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from dpa2calc.ambient import own_modes
from dpa2calc.errors import ConfigError
from dpa2calc.kernels.tables import require_kernels
from dpa2calc.kernels.tables import why_no_kernels as why_no_kernels
from dpa2calc.kernels.tables.moments import TabulatedEmbedding
from dpa2calc.kernels.tables.table import CompressionReport, EmbeddingTable, build_table, embedding_jets
from dpa2calc.model.descriptors import TabulatedPart
from dpa2calc.model.neighborhood import Environment
from dpa2calc.model.potential import Potential

CLOSEST = 0.1  # Å; nothing is tabulated for atoms closer than this, and they are refused
_BOND = 0.7  # Å; the shortest bond, where the nodes begin to spread


def why_not_compressible(potential: Potential) -> str | None:
    """The reason why a model has nothing that could be tabulated, or None if it has."""
    return potential.descriptor.why_not_tabulated()


@own_modes()
def compress(
    potential: Potential, *, tolerance: float = 1e-8, device: torch.device | str = "cpu"
) -> tuple[Potential, CompressionReport]:
    """A copy of a potential whose radial embedding is tabulated, and how good the tables are.

    Args:
        potential: DPA-1 without attention, DeepPot-SE or DPA-2; left as it is.
        tolerance: largest error of the embedding and its slope, relative to their largest values. The
            default changes forces by less than 1e-7 eV/Å; time hardly depends on it.
        device: where it will be evaluated, which decides what has to be installed; the copy is made where
            the potential is.

    Raises:
        ConfigError: the model has attention layers, a net that is not smooth, or too many type pairs; there
            are no kernels for the device.
        MissingDependencyError: the compiler of the kernels for the device is not installed.

    Example:
        >>> fast, report = compress(load_model("student.safetensors"))
    """
    reason = why_not_compressible(potential)
    if reason is not None:
        raise ConfigError(reason)
    require_kernels(device)
    if not 0.0 < tolerance < 1.0:
        raise ConfigError(f"tolerance = {tolerance:g}; it must be between 0 and 1, for example 1e-8")
    fast = copy.deepcopy(potential).eval().use("inference")
    part = fast.descriptor.tabulated_part()
    table = _table(part, tolerance)
    part.owner.tabulated = TabulatedEmbedding(table)  # type: ignore[assignment]
    report = _report(table, part.environment, fast.dtype)
    fast.compression, fast.prefers_compression = report, True
    return fast, report


@own_modes()
def decompress(potential: Potential) -> Potential:
    """The same potential without tables (in place)."""
    for module in potential.modules():
        if getattr(module, "tabulated", None) is not None:
            module.tabulated = None  # type: ignore[assignment]
    potential.compression = None
    return potential


def _table(part: TabulatedPart, tolerance: float) -> EmbeddingTable:
    """One line for each line of each net, in their order."""
    each = [embedding_jets(net.net, inputs) for net, inputs in part.nets]

    def jets(s: Tensor, order: int) -> tuple[Tensor, ...]:
        return tuple(map(torch.cat, zip(*(one(s, order) for one in each))))

    return build_table(jets, tolerance=tolerance, **_range(part.environment))


def _range(environment: Environment) -> dict[str, float]:
    """Arguments that can occur for any type of the centre."""
    mean, std = environment.mean[:, 0].double(), environment.std[:, 0].double()

    def largest(r: float) -> float:
        return float(((1.0 / (r + environment.protection) - mean) / std).max())

    return {"low": float((-mean / std).min()), "physical": largest(_BOND), "high": largest(CLOSEST)}


def _report(table: EmbeddingTable, environment: Environment, dtype: torch.dtype) -> CompressionReport:
    return CompressionReport(
        closest=CLOSEST,
        cutoff=environment.cutoff,
        smallest=table.low,
        largest=table.high,
        n_tables=table.nodes.shape[0],
        n_nodes=table.n_nodes,
        megabytes=table.nodes.numel() * dtype.itemsize / 1e6,
        **vars(table.error),
    )
