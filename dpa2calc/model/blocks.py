"""How many atoms the kernels for inference take at a time."""

from __future__ import annotations

import torch
from torch import Tensor

_DEVICE_BYTES = 256_000_000  # of one array of a block where the caches of CPU cores do not matter


def block_length(like: Tensor, numbers: int, cache_bytes: int) -> int:
    """Atoms (rows) in a block, so that its widest array takes about `cache_bytes` for each thread.

    Elsewhere than on a CPU each operation of a block costs a launch, and blocks are as long as memory allows.

    Args:
        like: a tensor of the same type, on the same device. numbers: of the widest array, for one atom.
    """
    room = torch.get_num_threads() * cache_bytes if like.device.type == "cpu" else _DEVICE_BYTES
    return max(1, room // (numbers * like.element_size()))
