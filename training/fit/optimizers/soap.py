"""SOAP: Adam in the eigenbasis of each weight matrix's gradient covariances.

Vyas et al., "SOAP: Improving and stabilizing Shampoo using Adam", arXiv:2409.11321. Force errors of these
models fall many times faster than with Adam at the price of a few small matrix products a step
(`benchmarks/optimizers.py`).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

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

    def refresh(self) -> Tensor:
        """One step of orthogonal iteration; returns the order that sorts directions by size."""
        size = torch.einsum("ia,ij,ja->a", self.basis, self.covariance, self.basis)
        order = size.argsort(descending=True)
        # Row-major like a basis read from a file: products of other layouts differ in the last bit.
        self.basis = torch.linalg.qr(self.covariance @ self.basis[:, order])[0].contiguous()
        return order


class Soap(Adam):
    """Adam's moments, turned; vectors and scalars get plain Adam steps.

    A weight's first gradient only sets its basis. Every `refresh_every` of its steps the basis is renewed
    by one step of orthogonal iteration.
    """

    def __init__(
        self,
        named: dict[str, nn.Parameter],
        *,
        beta1: float = 0.95,
        beta2: float = 0.95,
        weight_decay: float = 0.0,
        refresh_every: int = 10,
        eps: float = 1e-8,
    ):
        super().__init__(named, beta1=beta1, beta2=beta2, weight_decay=weight_decay, eps=eps)
        self.refresh_every = refresh_every
        self.sides: dict[str, tuple[_Rotation | None, _Rotation | None]] = {}

    @torch.no_grad()
    def step(self, learning_rate: float) -> None:
        """One update with the gradients in the parameters."""
        for name, p in self.named.items():
            if p.grad is not None:
                self._update(name, p, p.grad, learning_rate)

    def _update(self, name: str, p: nn.Parameter, gradient: Tensor, learning_rate: float) -> None:
        is_matrix = p.dim() == 2 and min(p.shape) > 1
        if is_matrix and name not in self.sides:
            self.sides[name] = _first_sides(gradient)
            if any(self.sides[name]):
                return
        left, right = self.sides.get(name, (None, None))
        self.steps[name] += 1
        t, mean, square = self.steps[name], self.means[name], self.squares[name]
        mean.lerp_(gradient, 1.0 - self.beta1)
        turned = _turn(gradient, left, right)
        square.mul_(self.beta2).addcmul_(turned, turned, value=1.0 - self.beta2)
        size = square.sqrt().div_((1.0 - self.beta2**t) ** 0.5)
        size.clamp_(min=NOISE_SHARE * size.max()).add_(self.eps)  # a tensor: no waiting for a GPU
        update = _turn_back(_turn(mean, left, right) / size, left, right)
        if self.weight_decay:
            p.mul_(1.0 - learning_rate * self.weight_decay)
        p.add_(update, alpha=-learning_rate / (1.0 - self.beta1**t))
        if left is not None:
            left.covariance.lerp_(gradient @ gradient.T, 1.0 - self.beta2)
        if right is not None:
            right.covariance.lerp_(gradient.T @ gradient, 1.0 - self.beta2)
        if t % self.refresh_every == 0:
            if left is not None:
                self.squares[name] = self.squares[name][left.refresh()]
            if right is not None:
                self.squares[name] = self.squares[name][:, right.refresh()].contiguous()

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
                    _stored_side(tensors, key, name, p, length, needed=began and length <= MAX_ROTATED)
                    for key, length in zip(("left", "right"), p.shape)
                )
                if left or right:
                    self.sides[name] = left, right


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
    return _Rotation(covariance.to(p), basis.to(p))


def _first_sides(gradient: Tensor) -> tuple[_Rotation | None, _Rotation | None]:
    """Covariances and bases of both sides from the first gradient; None for a side that is too long."""
    left, right = (
        _first_rotation(g @ g.T) if len(g) <= MAX_ROTATED else None for g in (gradient, gradient.T)
    )
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
