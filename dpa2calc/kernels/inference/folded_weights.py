"""Products of weights, computed once while the weights are fixed."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

from torch import Tensor, nn

ModuleType = TypeVar("ModuleType", bound=nn.Module)


def folded(method: Callable[[ModuleType], Tensor]) -> Callable[[ModuleType], Tensor]:
    """Remember what `method` computes from the module's parameters until one of them changes.

    While a parameter requires a gradient (training) nothing is remembered.
    """

    @functools.wraps(method)
    def remembered(module: ModuleType) -> Tensor:
        parameters = list(module.parameters())
        if any(parameter.requires_grad for parameter in parameters):
            return method(module)
        store: dict[str, Any] = module.__dict__.setdefault("_folded", {})
        stamp = tuple((parameter.data_ptr(), parameter._version) for parameter in parameters)
        if method.__name__ not in store or store[method.__name__][0] != stamp:
            store[method.__name__] = (stamp, method(module).contiguous())
        return store[method.__name__][1]

    return remembered
