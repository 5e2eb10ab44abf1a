"""How sure a head of energies is: the prediction rigidity of its last layer (docs/maths.md 17).

The energy of an atom is w . f_i + constants, f_i the last hidden layer. With C the second moments of f over
the atoms of the training set, the weights w are known up to a Gaussian of covariance scale^2 (C + ridge)^-1:

    std of E = scale |A sum_i f_i|,    std of e_i = scale |A f_i|,    A^T A = (C + ridge)^-1

(Bigi, Chong, Ceriotti, Grasselli, arXiv:2403.02251; of atoms: Chong, Grasselli, Ben Mahmoud, Morrow,
Deringer, Ceriotti, arXiv:2302.08880). `scale` is measured on frames that were not trained on. Forces have
no formula of that kind; their deviation is that of the forces of `MEMBERS` draws of w.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from dpa2calc.ambient import has_float64
from dpa2calc.errors import ConfigError

MEMBERS = 8
QUANTILE = 0.999  # of the training atoms of an element, whose deviation is the element's usual largest
MOST_UNLIKELY = 400.0  # over this multiple of the median, error^2 / variance is that of a wrong label
FORBIDDEN = 0.01  # under this share of the floor, the deviation of a force is zero by symmetry
RIDGES = (1e-8, 1e-7, 1e-6, 1e-5, 1e-4)  # relative to the mean eigenvalue of C


@dataclass(frozen=True, kw_only=True)
class RigidityFacts:
    """What a rigidity was measured on; goes into files.

    Attributes:
        scale: eV. force_scale: what the deviations of forces are multiplied by, besides.
        force_floor: eV/Å, the part of the error of forces that does not grow with their deviation.
        ridge: relative to the mean eigenvalue of C.
        atoms, frames: of the training set, that were used.
        calibrated_on: number of frames. held_out: whether these were not trained on.
        left_out: frames whose errors looked like wrong labels.
        force_error, typical_force: on some of these frames, root mean squares of components, eV/Å.
    """

    scale: float
    force_scale: float = 1.0
    force_floor: float = field(default=0.0, metadata={"left_out": True})
    ridge: float = RIDGES[0]
    frames: int = 0
    atoms: int = 0
    calibrated_on: int = 0
    held_out: bool = False
    left_out: int = field(default=0, metadata={"left_out": True})
    force_error: float | None = field(default=None, metadata={"left_out": True})
    typical_force: float | None = field(default=None, metadata={"left_out": True})

    def __str__(self) -> str:
        of = "validation" if self.held_out else "training"
        return f"from {self.atoms} atoms of {self.frames} frames, scale from {self.calibrated_on} {of} frames"


class Rigidity(nn.Module):
    """The rigidity of one head: a lower triangle A for each fitting net, a usual largest deviation per type.

    Args:
        factor: (n_nets, m, m), without the scale. limits: (n_types,) eV; 0 for types that were not there.
    """

    factor: Tensor
    limits: Tensor

    def __init__(self, factor: Tensor, limits: Tensor, facts: RigidityFacts) -> None:
        super().__init__()
        self.register_buffer("factor", factor.to(torch.float32), persistent=False)
        self.register_buffer("limits", limits.to(torch.float32), persistent=False)
        self.facts = facts

    @torch.no_grad()
    def of_atoms(self, features: Tensor, types: Tensor) -> Tensor:
        """Standard deviations of the energies of atoms, (n,) eV, from features (n, m)."""
        return self.facts.scale * self._lengths(features, self._nets(types))

    @torch.no_grad()
    def of_structures(self, features: Tensor, types: Tensor, structure: Tensor, n: int) -> Tensor:
        """Standard deviations of the energies of structures, (n,) eV; structure (n_atoms,)."""
        return self.of_sums(sums_by_net(features, self._nets(types), structure, n, len(self.factor)))

    @torch.no_grad()
    def of_sums(self, sums: Tensor) -> Tensor:
        """The same, from features summed over the atoms of each net, (n, n_nets, m)."""
        parts = self.factor @ sums.to(self.factor).unsqueeze(-1)  # (n, n_nets, m, 1)
        return self.facts.scale * parts.flatten(1).norm(dim=1)

    def sums(self, features: Tensor, types: Tensor) -> Tensor:
        """Features of one structure, or of a part of it, summed over the atoms of each net, (n_nets, m)."""
        if len(self.factor) == 1:
            return features.sum(dim=0, keepdim=True, dtype=torch.float64)
        structure = torch.zeros_like(types)
        return sums_by_net(features, self._nets(types), structure, 1, len(self.factor))[0]

    def draws(self, types: Tensor) -> Tensor:
        """What draws of the weights differ from the weights by, for each atom: (MEMBERS, n, m), eV.

        The same for all structures, from a seed, so that forces are a function of positions.
        """
        generator = torch.Generator().manual_seed(0)
        n_nets, m, _ = self.factor.shape
        normal = torch.randn(MEMBERS, n_nets, 1, m, generator=generator, dtype=torch.float64).to(self.factor)
        scale = self.facts.scale * self.facts.force_scale
        return (scale * (normal @ self.factor).squeeze(2))[:, self._nets(types)]

    def of_forces(self, changes: Tensor) -> Tensor:
        """Standard deviations of forces (n, 3), eV/Å, from what draws change them by, (MEMBERS, n, 3).

        A force that no draw changes, as symmetry forbids it, stays without doubt.
        """
        variances, floor = changes.square().mean(dim=0), self.facts.force_floor
        if not (floor and self.facts.force_error):
            return variances.sqrt()
        seen = 1.0 - (floor / self.facts.force_error) ** 2
        return (seen * variances + floor**2 * _not_by_symmetry(variances, floor)).sqrt()

    def _nets(self, types: Tensor) -> Tensor:
        return types if len(self.factor) > 1 else torch.zeros_like(types)

    def _lengths(self, features: Tensor, nets: Tensor) -> Tensor:
        if len(self.factor) == 1:
            return _triangle_lengths(self.factor[0], features)
        lengths = features.new_zeros(len(features))
        for net in nets.unique().tolist():
            own = nets == net
            lengths[own] = _triangle_lengths(self.factor[net], features[own])
        return lengths

    # --- files ------------------------------------------------------------------------------------

    def tensors(self) -> dict[str, Tensor]:
        """What a file holds: triangles (n_nets, m (m + 1) / 2) and limits (n_types,)."""
        rows, columns = torch.tril_indices(self.factor.shape[1], self.factor.shape[1])
        return {"triangle": self.factor[:, rows, columns].float().cpu(), "limits": self.limits.float().cpu()}

    @classmethod
    def from_tensors(
        cls, tensors: dict[str, Tensor], facts: RigidityFacts, shape: tuple[int, int, int]
    ) -> Rigidity:
        """Put back what `tensors` gave.

        Args:
            shape: number of nets, width of the last hidden layer, number of types.

        Raises:
            ConfigError: they do not fit the shape.
        """
        n_nets, m, n_types = shape
        expected = {"triangle": (n_nets, m * (m + 1) // 2), "limits": (n_types,)}
        found = {name: tuple(value.shape) for name, value in tensors.items()}
        if found != expected:
            raise ConfigError(f"an uncertainty has arrays {found}, expected {expected}")
        rows, columns = torch.tril_indices(m, m)
        factor = torch.zeros(n_nets, m, m)
        factor[:, rows, columns] = tensors["triangle"].float()
        return cls(factor, tensors["limits"], facts)


def force_floor(squares: Tensor, variances: Tensor) -> float:
    """The part of errors of forces (root mean square, eV/Å) that does not grow with their deviations.

    Deviations that are too alike in truth, as the descriptor errs too, look too different: the smaller half
    of them is too small. With the floor they have the right mean square, and all together keep theirs.

    Args:
        squares: (n,) squared errors of components. variances: (n,) of the same mean, from draws.
    """
    total = squares.mean()
    inside = _not_by_symmetry(variances, float(total.sqrt()))
    used = inside > 0.5
    if not bool(used.any()):
        return 0.0
    lower = used & (variances <= variances[used].quantile(0.5))
    lacking = squares[lower].mean() - variances[lower].mean()
    share = lacking / (total * inside[lower].mean() - variances[lower].mean()).clamp(min=1e-30)
    return float((share.clamp(0.0, 1.0) * total).sqrt())


def _not_by_symmetry(variances: Tensor, floor: float) -> Tensor:
    """One for components of forces that may err, zero for those that are zero by symmetry."""
    return variances / (variances + (FORBIDDEN * floor) ** 2)


def _triangle_lengths(factor: Tensor, features: Tensor) -> Tensor:
    """|A f| of features (n, m); by three strips, which leave out most of the zeros of the triangle."""
    squares, step = features.new_zeros(len(features)), -(-len(factor) // 3)
    for end in range(step, len(factor) + step, step):
        strip = factor[end - step : end, :end]
        squares += (features[:, :end] @ strip.t()).square_().sum(dim=1)
    return squares.sqrt_()


def sums_by_net(features: Tensor, nets: Tensor, structure: Tensor, n: int, n_nets: int) -> Tensor:
    """Features (n_atoms, m) summed by structure and net: (n, n_nets, m), float64 where the device has it."""
    dtype = torch.float64 if has_float64(features.device) else features.dtype
    sums = features.new_zeros(n * n_nets, features.shape[1], dtype=dtype)
    return sums.index_add_(0, structure * n_nets + nets, features.to(dtype)).view(n, n_nets, -1)


def inverse_factor(moments: Tensor, ridge: float) -> Tensor:
    """The lower triangles A with A^T A = (C + ridge * mean eigenvalue)^-1, from C (n_nets, m, m) float64.

    A net without atoms keeps a factor as if it had seen one feature vector of length 1 a direction.
    """
    m = moments.shape[-1]
    mean = moments.diagonal(dim1=-2, dim2=-1).mean(dim=-1)
    ridges = torch.diag_embed(torch.where(mean > 0, ridge * mean, 1.0).unsqueeze(1).expand(-1, m))
    lower = torch.linalg.cholesky(moments + ridges)
    one = torch.eye(m, dtype=moments.dtype).expand_as(lower)
    return torch.linalg.solve_triangular(lower, one, upper=False)


@dataclass(frozen=True)
class Calibration:
    """The ridge and scale that fit errors best."""

    ridge: float
    scale: float
    left_out: int


def calibrate(moments: Tensor, sums: Tensor, errors: Tensor) -> Calibration:
    """Choose ridge and scale by the likelihood of errors of energies, each Gaussian of its own width.

    For a given ridge the best scale is scale^2 = mean of error^2 / |A sum f|^2. Errors over twenty times
    the usual multiple of their deviation, which are wrong labels, are left out.

    Args:
        moments: C, (n_nets, m, m). sums: (n_frames, n_nets, m) features summed over the atoms of a net.
        errors: (n_frames,) eV. All float64.
    """
    best: tuple[float, Calibration] | None = None
    for ridge in RIDGES:
        factor = inverse_factor(moments, ridge)
        variances = torch.einsum("kab,fkb->fka", factor, sums).square().sum(dim=(1, 2))
        ratios = errors.square() / variances
        kept = ratios <= MOST_UNLIKELY * ratios.median()
        scale = ratios[kept].mean().clamp(min=1e-24)
        cost = float(variances[kept].log().mean() + scale.log())
        if best is None or cost < best[0]:
            best = (cost, Calibration(ridge, float(scale.sqrt()), int((~kept).sum())))
    assert best is not None
    return best[1]
