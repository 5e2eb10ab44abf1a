"""Optimiser, gradient clipping and the running average of the weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from .config import TrainConfig


def make_optimizer(parameters: list[nn.Parameter], config: TrainConfig) -> torch.optim.Optimizer:
    """Adam or AdamW of the options; the learning rate is set at every step."""
    kind = torch.optim.AdamW if config.optimizer == "adamw" else torch.optim.Adam
    return kind(
        parameters,
        lr=config.learning_rate,
        betas=(config.beta1, config.beta2),
        weight_decay=config.weight_decay,
        fused=True,
    )


def gradient_norm(parameters: list[nn.Parameter]) -> Tensor:
    """Length of the whole gradient."""
    norms = [p.grad.norm() for p in parameters if p.grad is not None]
    return torch.stack(norms).norm() if norms else torch.zeros(())


class Clipper:
    """Shortens gradients that are too long, absolutely or against the running mean of their length."""

    def __init__(self, limit: float | None, relative: float | None):
        self.limit, self.relative = limit, relative
        self.mean_norm = 0.0

    def apply(self, parameters: list[nn.Parameter]) -> float:
        """Clip in place; returns the length before clipping (inf or NaN are returned untouched)."""
        norm = float(gradient_norm(parameters))
        if not 0.0 < norm < float("inf"):
            return norm
        limit = self.limit if self.limit is not None else float("inf")
        if self.relative is not None:
            if self.mean_norm > 0.0:
                limit = min(limit, self.relative * self.mean_norm)
            seen = min(norm, limit)
            self.mean_norm = seen if self.mean_norm == 0.0 else 0.99 * self.mean_norm + 0.01 * seen
        if norm > limit:
            for p in parameters:
                if p.grad is not None:
                    p.grad.mul_(limit / norm)
        return norm


@contextmanager
def evaluating(potential: nn.Module) -> Iterator[None]:
    """Inside, no weight asks for a gradient, so that the model's faster inference kernels are used."""
    flags = [(p, p.requires_grad) for p in potential.parameters()]
    for p, _ in flags:
        p.requires_grad_(False)
        # The fused optimiser writes weights without counting a new version, by which the model knows
        # that its products of weights are out of date.
        p.mul_(1.0)
    try:
        yield
    finally:
        for p, flag in flags:
            p.requires_grad_(flag)


class WeightAverage:
    """Exponential moving average of the trainable weights; decay 0 means the weights themselves."""

    def __init__(self, parameters: list[nn.Parameter], decay: float):
        self.parameters, self.decay = parameters, decay
        self.average = [p.detach().clone() for p in parameters] if decay else []

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights after a step counted from 0; early on the average is short."""
        decay = min(self.decay, (1.0 + step) / (10.0 + step))
        for average, p in zip(self.average, self.parameters):
            average.lerp_(p, 1.0 - decay)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Inside, the potential holds the averaged weights."""
        if not self.average:
            yield
            return
        own = [p.detach().clone() for p in self.parameters]
        self._put(self.average)
        try:
            yield
        finally:
            self._put(own)

    @torch.no_grad()
    def _put(self, values: list[Tensor]) -> None:
        for p, value in zip(self.parameters, values):
            p.copy_(value)
