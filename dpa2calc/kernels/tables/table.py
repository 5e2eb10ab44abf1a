"""Embedding nets as piecewise quintic polynomials of the (normalised) switched inverse distance.

Value, first and second derivative of every channel are kept at nodes s_k = low + length (u_k^2 - 1),
u_k = 1 + k step, and a quintic is drawn between two nodes, so the result has two continuous derivatives
everywhere. The nodes are evenly spaced around s = 0, where most neighbours are, and spread like sqrt(s)
towards short distances, where nets saturate. The spacing is halved until both the value and the slope
are as good as asked for, which is measured half way and at other points between all nodes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from dpa2calc.errors import ConfigError, StructureError
from dpa2calc.kernels.jets import scalar_jets
from dpa2calc.kernels.net import Net

# arguments (p,), 1 or 2 -> value and so many derivatives (lines, p, size); the lines are the type pairs
Jets = Callable[[Tensor, int], tuple[Tensor, ...]]
MAX_BYTES = 1_000_000_000
MAX_NODES = 30_000  # of one type pair; smooth nets need a few hundred
_CACHED_NUMBERS = 262_144  # of one array; with larger ones most of the time goes into new pages of memory


@dataclass(frozen=True)
class TableError:
    """How far a table is from its net, at points between the nodes, over all type pairs and channels.

    value: of G (no unit); slope: of dG/ds, s being the normalised switched inverse distance.
    """

    value_max: float
    value_rms: float
    slope_max: float
    slope_rms: float


@dataclass(frozen=True)
class CompressionReport:
    """What `compress` did.

    Attributes:
        closest, cutoff: Å, the distances covered. Closer atoms are an error.
        smallest, largest: range of the argument, the normalised switched inverse distance.
        n_tables, n_nodes: type pairs with a table of their own, nodes of each.
        megabytes: memory of the tables in the precision of the model.
        value_max, value_rms: error of the embedding against the net, between the nodes.
        slope_max, slope_rms: error of its derivative with respect to the argument.
    """

    closest: float
    cutoff: float
    smallest: float
    largest: float
    n_tables: int
    n_nodes: int
    megabytes: float
    value_max: float
    value_rms: float
    slope_max: float
    slope_rms: float

    def summary(self) -> str:
        """A few lines of text."""
        return (
            f"{self.n_tables} table{'s' if self.n_tables > 1 else ''} of {self.n_nodes} nodes, "
            f"{self.megabytes:.2g} MB, for {self.closest:g} to {self.cutoff:g} Å "
            f"(argument {self.smallest:.3g} to {self.largest:.3g})\n"
            f"error of the embedding {self.value_max:.1e} at most, {self.value_rms:.1e} rms\n"
            f"error of its slope     {self.slope_max:.1e} at most, {self.slope_rms:.1e} rms"
        )


@dataclass(frozen=True, eq=False)
class EmbeddingTable:
    """The nodes of all type pairs of one embedding.

    Attributes:
        nodes: (lines, n_nodes, 3, size) float64: G, dG/ds, d2G/ds2.
        low, length, step: the nodes' places, see the module.
        high: the largest argument.
        error: measured against the net.
    """

    nodes: Tensor
    low: float
    length: float
    step: float
    high: float
    error: TableError
    _copies: dict[tuple[torch.dtype, torch.device], Tensor] = field(default_factory=dict, repr=False)
    _grids: dict[torch.device, Tensor] = field(default_factory=dict, repr=False)

    @property
    def n_nodes(self) -> int:
        """Nodes of one type pair."""
        return self.nodes.shape[1]

    @property
    def size(self) -> int:
        """Number of channels."""
        return self.nodes.shape[3]

    @property
    def grid(self) -> tuple[float, float, float, float]:
        """low, length, step and the number of the last interval, as the kernels take them."""
        return self.low, self.length, self.step, float(self.n_nodes - 2)

    def width(self, dtype: torch.dtype) -> int:
        """Channels of `flat` on the CPU: as many more, all zero, as fill whole cache lines of 64 bytes."""
        per_line = 64 // dtype.itemsize
        return -(-self.size // per_line) * per_line

    def flat(self, dtype: torch.dtype, device: torch.device | str = "cpu") -> Tensor:
        """The nodes in a precision and on a device as one row of numbers."""
        key = dtype, torch.device(device)
        if key not in self._copies:
            more = self.width(dtype) - self.size if key[1].type == "cpu" else 0
            nodes = self.nodes.to(key[1], dtype)
            self._copies[key] = torch.nn.functional.pad(nodes, (0, more)).reshape(-1).contiguous()
        return self._copies[key]

    def grid_on(self, device: torch.device) -> Tensor:
        """`grid` on a device, float64: Python's floats would reach a Triton kernel as float32."""
        if device not in self._grids:
            self._grids[device] = torch.tensor(self.grid, dtype=torch.float64, device=device)
        return self._grids[device]

    def check(self, rows: Tensor) -> None:
        """Refuse rows (..., 4) of neighbours closer than the table's end.

        Raises:
            StructureError: says so.
        """
        if rows.numel() and float(rows[..., 0].max()) > self.high:
            raise StructureError(
                "two atoms are closer than the tables of this compressed model reach; check positions and "
                "cell, or evaluate it with compress=False"
            )

    def evaluate(self, s: Tensor) -> tuple[Tensor, Tensor]:
        """G and dG/ds at arguments (p,) for every type pair, (lines, p, size): the plain formulas."""
        return _evaluate(self.nodes, s, self.low, self.length, self.step)


def embedding_jets(net: Net, inputs: Tensor) -> Jets:
    """Value and two derivatives of net([s, inputs_line]) with respect to s.

    inputs: (lines, n) what follows the scalar, n may be 0.
    """

    def plain(tensor: Tensor) -> Tensor:
        return tensor.detach().double().cpu()

    fixed, types = net._replace(layers=tuple(layer.each(plain) for layer in net.layers)), plain(inputs)

    def jets(s: Tensor, order: int) -> tuple[Tensor, ...]:
        lines, p = types.shape[0], s.shape[0]
        inputs = types.unsqueeze(1).expand(lines, p, -1)
        return scalar_jets(fixed, s.double().expand(lines, p), inputs, order=order)

    return jets


def build_table(jets: Jets, *, low: float, physical: float, high: float, tolerance: float) -> EmbeddingTable:
    """The coarsest table of this family that is good to `tolerance`.

    Args:
        low, high: range of the argument.
        physical: argument at the shortest bonds; the nodes are dense up to about there.
        tolerance: largest error of value and slope, relative to the largest value (slope) or 1.

    Raises:
        ConfigError: no table of reasonable size is that good (a net with kinks, such as relu).
    """
    length = max(physical - low, 1e-3)
    span = math.sqrt(1.0 + (high - low) / length) - 1.0
    n_inner = 24
    probe = jets(torch.full((1,), low, dtype=torch.float64), 1)[0]
    for _ in range(40):
        step = (math.sqrt(2.0) - 1.0) / n_inner
        n_nodes = math.ceil(span / step) + 1
        _check_size(probe.shape[0], n_nodes, 24 * probe.numel() * n_nodes, tolerance)
        u = 1.0 + step * torch.arange(n_nodes, dtype=torch.float64)
        some = (low + length * (u * u - 1.0)).split(_portion(probe))
        nodes = torch.cat([torch.stack(jets(s, 2), dim=2) for s in some], dim=1)  # (lines, n_nodes, 3, size)
        scales = [max(1.0, float(nodes[:, :, k].abs().max())) for k in range(2)]
        for every in (8, 1):  # a table that is not good enough mostly shows it at once
            error = _errors(jets, nodes, low, length, step, every)
            worst = max(error.value_max / scales[0], error.slope_max / scales[1]) / tolerance
            if not worst <= 1.0:
                break
        else:
            end = low + length * (float(u[-1]) ** 2 - 1.0)
            return EmbeddingTable(nodes, low, length, step, end, error)
        # Where it is far off, the nodes that it needs are refused before any are computed.
        if worst > 1e3:
            needed = math.ceil(n_nodes * 0.5 * worst**0.2)
            _check_size(probe.shape[0], needed, 24 * probe.numel() * needed, tolerance)
        # The slope's error falls with the fifth power of the spacing.
        n_inner = math.ceil(n_inner * min(2.0, max(1.1, 1.02 * worst**0.2)))
    raise ConfigError(f"tolerance = {tolerance:g} cannot be reached in float64; take 1e-12 or more")


def _check_size(lines: int, n_nodes: int, n_bytes: int, tolerance: float) -> None:
    if n_nodes > MAX_NODES or n_bytes > MAX_BYTES:
        raise ConfigError(
            f"tables of {lines} type pairs good to {tolerance:g} would take {n_nodes} nodes and "
            f"{n_bytes / 1e9:.2g} GB (at most {MAX_NODES} and {MAX_BYTES / 1e9:g}); smooth "
            "activations (tanh, silu, gelu), fewer elements or a larger tolerance make them smaller"
        )


def _portion(values: Tensor) -> int:
    """Arguments whose values (lines, size), derivatives and terms of both fit the processor's cache."""
    return max(1, _CACHED_NUMBERS // values.numel())


def _errors(jets: Jets, nodes: Tensor, low: float, length: float, step: float, every: int) -> TableError:
    """Compare at four places of every interval, or of each eighth or so."""
    starts = torch.arange(0, nodes.shape[1] - 1, every, dtype=torch.float64)
    value_max = slope_max = value_sum = slope_sum = 0.0
    count = 0
    places = torch.cat([starts + part for part in (0.1, 0.25, 0.5, 0.85)])
    for some in places.split(_portion(nodes[:, 0, 0])):
        u = 1.0 + some * step
        s = low + length * (u * u - 1.0)
        value, slope = jets(s, 1)
        tabulated, tabulated_slope = _evaluate(nodes, s, low, length, step)
        dv, ds = (tabulated - value).abs(), (tabulated_slope - slope).abs()
        value_max, slope_max = max(value_max, float(dv.max())), max(slope_max, float(ds.max()))
        value_sum += float((dv * dv).sum())
        slope_sum += float((ds * ds).sum())
        count += dv.numel()
    return TableError(value_max, (value_sum / count) ** 0.5, slope_max, (slope_sum / count) ** 0.5)


def _evaluate(nodes: Tensor, s: Tensor, low: float, length: float, step: float) -> tuple[Tensor, Tensor]:
    s = s.double()
    u = (1.0 + (s - low) / length).clamp(min=1.0).sqrt()
    at = ((u - 1.0) / step).floor().long().clamp(0, nodes.shape[1] - 2)
    u0 = 1.0 + at.double() * step
    h = (length * step * (2.0 * u0 + step)).view(1, -1, 1)
    t = (s - low - length * (u0 * u0 - 1.0)).view(1, -1, 1) / h
    f, e = nodes[:, at], nodes[:, at + 1]  # (lines, p, 3, size)
    q = 1.0 - t
    # Value and slope of the five Hermite polynomials of unit length.
    v = (
        t**3 * (10.0 - 15.0 * t + 6.0 * t * t),
        t * q**3 * (1.0 + 3.0 * t),
        0.5 * t * t * q**3,
        -q * t**3 * (1.0 + 3.0 * q),
        0.5 * q * q * t**3,
    )
    w = (
        30.0 * (t * q) ** 2,
        q * q * (1.0 + 2.0 * t - 15.0 * t * t),
        0.5 * t * q * q * (2.0 - 5.0 * t),
        t * t * (1.0 + 2.0 * q - 15.0 * q * q),
        -0.5 * q * t * t * (2.0 - 5.0 * q),
    )
    terms = (e[:, :, 0] - f[:, :, 0], h * f[:, :, 1], h * h * f[:, :, 2], h * e[:, :, 1], h * h * e[:, :, 2])
    value = f[:, :, 0] + sum(a * b for a, b in zip(terms, v))
    slope = sum(a * b for a, b in zip(terms, w)) / h
    return value, torch.as_tensor(slope)
