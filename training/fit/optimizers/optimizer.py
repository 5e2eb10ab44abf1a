"""The choice of an optimiser, gradient clipping and the running average of the weights."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from dpa2calc.model.potential import Potential
from dpa2calc.training.config.train import FinetuneConfig, TrainConfig
from dpa2calc.training.runs.processes import ALONE, Processes

from .adam import Adam
from .soap import MAX_ROTATED, Soap

# With the repformers' sides of 640 rotated a step on few frames costs a third more, and teaches a trained
# model no more; fresh weights learn better with them.
MAX_ROTATED_FINETUNE = 256


def make_optimizer(
    named: dict[str, nn.Parameter], config: TrainConfig, processes: Processes = ALONE
) -> Adam | Soap:
    """The optimiser of these options; betas that are not given are the optimiser's own."""
    is_soap = config.optimizer == "soap"
    own = (0.95, 0.95) if is_soap else (0.9, 0.999)
    beta1, beta2 = (o if given is None else given for o, given in zip(own, (config.beta1, config.beta2)))
    if is_soap:
        decay = config.weight_decay
        longest = MAX_ROTATED_FINETUNE if isinstance(config, FinetuneConfig) else MAX_ROTATED
        return Soap(named, beta1=beta1, beta2=beta2, weight_decay=decay, longest=longest, processes=processes)
    return Adam(named, beta1=beta1, beta2=beta2, weight_decay=config.weight_decay)


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


class BatchClipper:
    """Shortens the gradient of one batch that is long beside those of the run's other batches.

    Without it a set with large errors decides the length, and through Adam's or SOAP's squares the pace, of
    every step that it takes part in, and the sets drawn with it learn next to nothing. The yardstick is the
    running geometric mean of the batches' lengths, which a few long ones do not move.
    """

    def __init__(self, relative: float | None):
        self.relative = relative
        self.mean_log: float | None = None

    def backward(self, loss: Tensor, parameters: list[nn.Parameter]) -> float | None:
        """Add the (shortened) gradient of `loss` to the parameters'.

        Returns:
            the log of its length; None where that is 0 or not finite, or nothing is to be shortened.
        """
        if self.relative is None:
            loss.backward(inputs=parameters)
            return None
        before = [p.grad for p in parameters]
        for p in parameters:
            p.grad = None
        loss.backward(inputs=parameters)
        norm = float(gradient_norm(parameters))
        usable = 0.0 < norm < float("inf")
        factor = 1.0
        if usable and self.mean_log is not None:
            factor = min(1.0, self.relative * math.exp(self.mean_log) / norm)
        for p, old in zip(parameters, before):
            if p.grad is None:
                p.grad = old
            else:
                p.grad.mul_(factor)
                if old is not None:
                    p.grad.add_(old)
        return math.log(norm) if usable else None

    def update(self, mean_log: float | None) -> None:
        """Take in the mean log length of a step's batches, of all processes; None if no batch had one."""
        if self.relative is not None and mean_log is not None:
            self.mean_log = mean_log if self.mean_log is None else 0.98 * self.mean_log + 0.02 * mean_log


def placed(potential: Potential, device: torch.device | str | None) -> Potential:
    """The potential itself where it is on the device already (or None is given), else a copy there."""
    own = next(potential.parameters()).device
    wanted = own if device is None else torch.device(device)
    if wanted.type == own.type and wanted.index in (None, own.index):
        return potential
    return copy.deepcopy(potential).to(wanted)


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
