"""Adam and AdamW."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn


class Adam:
    """Adam, or AdamW with `weight_decay`; parameters without a gradient keep their moments and step count.

    torch.optim is not used: making one of its optimisers imports the compiler (seconds at every start).
    """

    def __init__(
        self,
        named: dict[str, nn.Parameter],
        *,
        beta1: float = 0.9,
        beta2: float = 0.999,
        weight_decay: float = 0.0,
        eps: float = 1e-8,
    ):
        self.named, self.eps = named, eps
        self.beta1, self.beta2, self.weight_decay = beta1, beta2, weight_decay
        self.means = {n: torch.zeros_like(p) for n, p in named.items()}
        self.squares = {n: torch.zeros_like(p) for n, p in named.items()}
        self.steps = dict.fromkeys(named, 0)

    @torch.no_grad()
    def step(self, learning_rate: float) -> None:
        """One update with the gradients in the parameters."""
        names = [n for n, p in self.named.items() if p.grad is not None]
        if not names:
            return
        parameters: list[Tensor] = [self.named[n] for n in names]
        gradients = [cast(Tensor, p.grad) for p in parameters]
        means, squares = [self.means[n] for n in names], [self.squares[n] for n in names]
        for n in names:
            self.steps[n] += 1
        torch._foreach_lerp_(means, gradients, 1.0 - self.beta1)
        torch._foreach_mul_(squares, self.beta2)
        torch._foreach_addcmul_(squares, gradients, gradients, 1.0 - self.beta2)
        size = torch._foreach_sqrt(squares)
        torch._foreach_div_(size, [(1.0 - self.beta2 ** self.steps[n]) ** 0.5 for n in names])
        torch._foreach_add_(size, self.eps)
        if self.weight_decay:
            torch._foreach_mul_(parameters, 1.0 - learning_rate * self.weight_decay)
        rates = [-learning_rate / (1.0 - self.beta1 ** self.steps[n]) for n in names]
        torch._foreach_addcdiv_(parameters, means, size, rates)

    def zero_grad(self) -> None:
        """Forget all gradients."""
        for p in self.named.values():
            p.grad = None

    def tensors(self) -> dict[str, Tensor]:
        """Everything to save, by name."""
        out = {f"optimizer.mean.{n}": v for n, v in self.means.items()}
        return out | {f"optimizer.square.{n}": v for n, v in self.squares.items()}

    def load(self, tensors: dict[str, Tensor], steps: dict[str, int]) -> None:
        """Put back what `tensors` gave; a KeyError for a missing one, a RuntimeError for another shape."""
        for name in self.named:
            self.means[name].copy_(tensors[f"optimizer.mean.{name}"])
            self.squares[name].copy_(tensors[f"optimizer.square.{name}"])
            self.steps[name] = steps[name]
