"""A stand-in for an accelerator: tensors that compute on the CPU but live on another device.

Inside `OtherDevice()` whatever is put on `DEVICE` becomes an `Elsewhere`, and every operation that mixes it
with a tensor of the CPU raises, as CUDA does, so that a forgotten `.to(device)` shows on any machine. It also
notes what would make a GPU wait: copies between the devices, and operations whose size depends on values.

Tests that take their device from DEVICES run on the stand-in everywhere, and on CUDA with `-m gpu`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

DEVICE = torch.device("meta")  # the one device besides the CPU that every build of torch knows
_aten = torch.ops.aten
_CROSSING = {_aten._to_copy.default, _aten.copy_.default}
_CPU_INDEX = {_aten.index.Tensor, _aten.index_put_.default, _aten.index_put.default}
# A GPU has to finish its work before the CPU knows the result, or the size of it.
_WAITING = {"_local_scalar_dense", "nonzero", "masked_select", "bincount", "equal", "_unique2", "unique_dim"}
DEVICES = [
    pytest.param("meta", id="stand-in"),
    pytest.param(
        "cuda",
        marks=[
            pytest.mark.gpu,
            pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine"),
        ],
    ),
]


@contextmanager
def standing_in(device: str) -> Iterator[str]:
    """Inside, "meta" is the stand-in; other devices are themselves."""
    if device != "meta":
        yield device
        return
    with OtherDevice():
        yield device


class Elsewhere(Tensor):
    """Says that it is on DEVICE; `inner` holds its values."""

    inner: Tensor

    @staticmethod
    def __new__(cls, inner: Tensor) -> Elsewhere:
        return Tensor._make_wrapper_subclass(  # type: ignore[attr-defined,no-any-return]
            cls,
            inner.size(),
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device=DEVICE,
        )

    def __init__(self, inner: Tensor) -> None:
        self.inner = inner

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return compute(func, args, kwargs or {}, [])

    def tolist(self) -> Any:
        """Allowed, as on CUDA, and a copy."""
        return self.to("cpu").tolist()

    def new_tensor(self, data: Any, **options: Any) -> Tensor:  # type: ignore[override]
        """With values: PyTorch's own makes a meta tensor without any."""
        return torch.tensor(data, **{"dtype": self.dtype, **options}).to(DEVICE)

    def __repr__(self, *, tensor_contents: Any = None) -> str:
        return f"Elsewhere({self.inner})"


class OtherDevice(TorchDispatchMode):
    """Where tensors are made on DEVICE, or moved to it.

    trips: names of the operations so far for which a GPU would have waited.
    """

    def __init__(self) -> None:
        super().__init__()
        self.trips: list[str] = []

    def __enter__(self) -> OtherDevice:
        self._before = torch._C._only_lift_cpu_tensors()  # torch.tensor(3.0, device=...) passes by here too
        torch._C._set_only_lift_cpu_tensors(True)
        self._overwrite = torch.__future__.get_overwrite_module_params_on_conversion()
        torch.__future__.set_overwrite_module_params_on_conversion(True)  # module.to() keeps an Elsewhere
        return super().__enter__()  # type: ignore[no-any-return]

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        torch._C._set_only_lift_cpu_tensors(self._before)
        torch.__future__.set_overwrite_module_params_on_conversion(self._overwrite)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return compute(func, args, kwargs or {}, self.trips)


def compute(func: Any, args: Any, kwargs: dict[str, Any], trips: list[str]) -> Any:
    """The operation on the CPU; its result is elsewhere if the arguments or the device asked for are."""
    there: list[Elsewhere] = []
    here: list[Tensor] = []

    def plain(value: Any) -> Any:
        if isinstance(value, Elsewhere):
            there.append(value)
            return value.inner
        if isinstance(value, Tensor):
            assert not value.is_meta, func
            here.append(value)
        elif isinstance(value, list | tuple):
            return type(value)([plain(part) for part in value])
        return value

    plain_args = [plain(value) for value in args]
    plain_kwargs = {key: plain(value) for key, value in kwargs.items()}
    asked = kwargs.get("device")
    if asked is None and not there:
        return func(*args, **kwargs)
    target = DEVICE if asked is None else torch.device(asked)
    trips += _waits(func, args, there, here, target)
    if there and func not in _CROSSING:
        mixed = [tuple(t.shape) for t in here if t.dim() > 0 and func not in _CPU_INDEX]
        if mixed:
            raise RuntimeError(f"{func}: tensors of the CPU, shapes {mixed}, with tensors of another device")
    if asked is not None:
        plain_kwargs["device"] = torch.device("cpu")
    result = func(*plain_args, **plain_kwargs)
    if func is _aten.copy_.default:
        return args[0]
    if target != DEVICE:
        return result
    same = {id(leaf.inner): leaf for leaf in there}  # what an operation in place returns

    def wrap(value: Any) -> Any:
        if isinstance(value, list | tuple):
            return type(value)([wrap(part) for part in value])
        if not isinstance(value, Tensor):
            return value
        return same[id(value)] if id(value) in same else Elsewhere(value)

    return wrap(result)


def _waits(func: Any, args: Any, there: list[Any], here: list[Any], target: torch.device) -> list[str]:
    """The operation's name if a GPU would wait for it."""
    name = func.__name__.split(".")[0]
    if func is _aten.copy_.default:
        crosses = isinstance(args[0], Elsewhere) != isinstance(args[1], Elsewhere)
        return ["copy"] if crosses else []
    if func is _aten._to_copy.default:
        return ["copy"] if bool(there) != (target == DEVICE) else []
    by_mask = func in _CPU_INDEX and any(isinstance(i, Tensor) and i.dtype == torch.bool for i in args[1])
    return [name] if there and (name in _WAITING or by_mask) else []
