"""SOAP: Adam in the eigenbasis of each weight matrix's gradient covariances.

Vyas et al., "SOAP: Improving and stabilizing Shampoo using Adam", arXiv:2409.11321. Force errors of these
models fall many times faster than with Adam at the price of a few small matrix products a step
(`benchmarks/optimizers.py`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from dpa2calc.training.runs.processes import ALONE, Processes

from .adam import Adam

# A side longer than this is not rotated: its basis would cost more than the step.
MAX_ROTATED = 1536
# Directions whose gradient is below this share of the matrix's largest are rounding noise (a set of two
# elements never moves most of the type embedding); without the floor they would take full steps.
NOISE_SHARE = 1e-4


@dataclass
class _Rotation:
    """Running covariance of the gradient along one side of a matrix, and its eigenvectors as columns."""

    covariance: Tensor
    basis: Tensor

    def refreshed(self) -> tuple[Tensor, Tensor]:
        """The basis after one step of orthogonal iteration, and the order that sorts directions by size."""
        image = self.covariance @ self.basis
        order = (self.basis * image).sum(dim=0).argsort(descending=True)
        # Row-major like a basis read from a file: products of other layouts differ in the last bit.
        return torch.linalg.qr(image.index_select(1, order))[0].contiguous(), order


class Soap(Adam):
    """Adam's moments, turned; vectors and scalars get plain Adam steps.

    A side longer than `longest` is not rotated. A weight's first gradient only sets its basis. Every
    `refresh_every` of its steps the basis is renewed by one step of orthogonal iteration; `processes` that
    train together share this work.
    """

    def __init__(
        self,
        named: dict[str, nn.Parameter],
        *,
        beta1: float = 0.95,
        beta2: float = 0.95,
        weight_decay: float = 0.0,
        refresh_every: int = 10,
        longest: int = MAX_ROTATED,
        eps: float = 1e-8,
        processes: Processes = ALONE,
    ):
        super().__init__(named, beta1=beta1, beta2=beta2, weight_decay=weight_decay, eps=eps)
        self.refresh_every, self.longest, self.processes = refresh_every, longest, processes
        self.sides: dict[str, tuple[_Rotation | None, _Rotation | None]] = {}

    @torch.no_grad()
    def step(self, learning_rate: float) -> None:
        """One update with the gradients in the parameters."""
        names = [n for n, p in self.named.items() if p.grad is not None and not self._begins(n, p.grad)]
        if not names:
            return
        for n in names:
            self.steps[n] += 1
        parameters: list[Tensor] = [self.named[n] for n in names]
        gradients = [cast(Tensor, p.grad) for p in parameters]
        means, squares = [self.means[n] for n in names], [self.squares[n] for n in names]
        sides = [self.sides.get(n, (None, None)) for n in names]
        torch._foreach_lerp_(means, gradients, 1.0 - self.beta1)
        turned = [_turn(g, *side) for g, side in zip(gradients, sides)]
        torch._foreach_mul_(squares, self.beta2)
        torch._foreach_addcmul_(squares, turned, turned, 1.0 - self.beta2)
        size = torch._foreach_sqrt(squares)
        torch._foreach_div_(size, [(1.0 - self.beta2 ** self.steps[n]) ** 0.5 for n in names])
        for x in size:
            x.clamp_(min=NOISE_SHARE * x.max())  # a tensor: no waiting for a GPU
        torch._foreach_add_(size, self.eps)
        steps = torch._foreach_div([_turn(mean, *side) for mean, side in zip(means, sides)], size)
        updates = [_turn_back(x, *side) for x, side in zip(steps, sides)]
        torch._foreach_mul_(updates, [-learning_rate / (1.0 - self.beta1 ** self.steps[n]) for n in names])
        if self.weight_decay:
            torch._foreach_mul_(parameters, 1.0 - learning_rate * self.weight_decay)
        torch._foreach_add_(parameters, updates)
        self._follow(names)

    def _begins(self, name: str, gradient: Tensor) -> bool:
        """Whether this gradient sets the first basis of a matrix."""
        if name in self.sides or gradient.dim() != 2 or min(gradient.shape) == 1:
            return False
        self.sides[name] = _first_sides(gradient, self.longest)
        return any(self.sides[name])

    def _follow(self, names: list[str]) -> None:
        """Take the gradients into the covariances, and renew the bases whose turn it is."""
        due: list[tuple[str, int, _Rotation]] = []
        for name in names:
            gradient, t = cast(Tensor, self.named[name].grad), self.steps[name]
            for axis, side in enumerate(self.sides.get(name, ())):
                if side is None:
                    continue
                g = gradient.T if axis else gradient
                side.covariance.addmm_(g, g.T, beta=self.beta2, alpha=1.0 - self.beta2)
                if t % self.refresh_every == 0:
                    due.append((name, axis, side))
        orders = _renewed([side for *_, side in due], self.processes)
        for (name, axis, _), order in zip(due, orders):
            self.squares[name] = self.squares[name].index_select(axis, order)

    def tensors(self) -> dict[str, Tensor]:
        """Everything to save, by name."""
        out = super().tensors()
        for name, sides in self.sides.items():
            for key, side in zip(("left", "right"), sides):
                if side is not None:
                    out[f"optimizer.{key}_covariance.{name}"] = side.covariance
                    out[f"optimizer.{key}_basis.{name}"] = side.basis
        return out

    def load(self, tensors: dict[str, Tensor], steps: dict[str, int]) -> None:
        """Put back what `tensors` gave, see `Adam.load`."""
        super().load(tensors, steps)
        for name, p in self.named.items():
            if p.dim() == 2 and min(p.shape) > 1:
                began = self.steps[name] > 0
                left, right = (
                    _stored_side(tensors, key, name, p, length, needed=began and length <= self.longest)
                    for key, length in zip(("left", "right"), p.shape)
                )
                if left or right:
                    self.sides[name] = left, right


def _renewed(sides: list[_Rotation], processes: Processes) -> list[Tensor]:
    """Renew the bases; returns the order of each. Every process renews a share, and all get all of it."""
    mine: set[int] = set()
    loads = [0] * processes.size
    for k in sorted(range(len(sides)), key=lambda k: -len(sides[k].basis)):
        rank = loads.index(min(loads))
        loads[rank] += len(sides[k].basis) ** 3
        if rank == processes.rank:
            mine.add(k)
    made = [side.refreshed() if k in mine else None for k, side in enumerate(sides)]
    if processes.size > 1:
        made = _exchanged(sides, made, processes)
    orders = []
    for side, pair in zip(sides, made):
        assert pair is not None
        side.basis, order = pair
        orders.append(order)
    return orders


def _exchanged(
    sides: list[_Rotation], made: list[tuple[Tensor, Tensor] | None], processes: Processes
) -> list[tuple[Tensor, Tensor] | None]:
    """What each process made, for all of them, in one message: the orders are numbers in it."""
    pieces: list[Tensor] = []
    for side, pair in zip(sides, made):
        n = len(side.basis)
        pieces += [side.basis.new_zeros(n, n), side.basis.new_zeros(n)] if pair is None else pair
    if not pieces:
        return made
    like = sides[0].basis
    summed = processes.sum(torch.cat([piece.to(like).reshape(-1) for piece in pieces]))
    parts = iter(summed.split([piece.numel() for piece in pieces]))
    return [(next(parts).view_as(side.basis).clone(), next(parts).round().long()) for side in sides]


def _stored_side(
    tensors: dict[str, Tensor], key: str, name: str, p: Tensor, length: int, *, needed: bool
) -> _Rotation | None:
    covariance, basis = (tensors.get(f"optimizer.{key}_{kind}.{name}") for kind in ("covariance", "basis"))
    if covariance is None or basis is None:
        if needed or covariance is not None or basis is not None:
            raise KeyError(f"optimizer.{key}_basis.{name}")
        return None
    if covariance.shape != (length, length) or basis.shape != (length, length):
        raise RuntimeError(f"the optimizer's {key} basis of {name} has another shape")
    # copies: what a file's buffer holds is not aligned, and products there differ in the last bit
    return _Rotation(covariance.to(p, copy=True), basis.to(p, copy=True))


def _first_sides(gradient: Tensor, longest: int) -> tuple[_Rotation | None, _Rotation | None]:
    """Covariances and bases of both sides from the first gradient; None for a side that is too long."""
    left, right = (_first_rotation(g @ g.T) if len(g) <= longest else None for g in (gradient, gradient.T))
    return left, right


def _first_rotation(covariance: Tensor) -> _Rotation:
    # In float64, since one gradient's covariance is far from full rank.
    vectors = torch.linalg.eigh(covariance.double())[1].flip(1)
    return _Rotation(covariance, vectors.to(covariance.dtype).contiguous())


def _turn(x: Tensor, left: _Rotation | None, right: _Rotation | None) -> Tensor:
    """Into the eigenbasis."""
    x = x if left is None else left.basis.T @ x
    return x if right is None else x @ right.basis


def _turn_back(x: Tensor, left: _Rotation | None, right: _Rotation | None) -> Tensor:
    x = x if left is None else left.basis @ x
    return x if right is None else x @ right.basis.T
