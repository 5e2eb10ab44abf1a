"""What the functions with first and second derivatives by hand share.

A loss on forces differentiates the gradient of the energy once more. Such a function f has two parts: f
with its backward pass, and the backward pass with respect to the inputs as a function of its own, f'. What
f' needs from the inside of f is an output of f, so that the gradients that f' sends there join f's backward
pass the second time it runs; every product of matrices is then done once, as in a derivation by hand of the
whole. The engine says which gradients are wanted: those of the weights only the second time.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from dpa2calc.kernels.blocks import total

Grad = Tensor | None


def wanted(ctx: Any) -> tuple[bool, ...]:
    """For each tensor among the inputs of a function whether this backward pass asks for its gradient."""
    return tuple(node is not None and _runs(node) for node, _ in ctx.next_functions)


def by_formula(value: Tensor, inputs: Sequence[Tensor], grad: Tensor) -> list[Grad]:
    """Gradients of the inputs that can be differentiated again, from what a plain formula makes of them."""
    asked = [x for x in inputs if x.requires_grad]
    found = iter(torch.autograd.grad(value, asked, grad, create_graph=True))
    return [next(found) if x.requires_grad else None for x in inputs]


def by_weight(sums: Tensor, weights: Sequence[Tensor]) -> list[Tensor]:
    """Gradients of weights from sums (threads, numbers), in which the weights stand behind each other."""
    parts = total(sums).to(weights[0].dtype).split([w.numel() for w in weights])
    return [part.view(w.shape) for part, w in zip(parts, weights)]


def _runs(node: Any) -> bool:
    try:
        return bool(torch._C._will_engine_execute_node(node))
    except RuntimeError:  # the gradient of a leaf asked for by autograd.grad
        return True
