"""Several processes: gradients summed by hand in one flat buffer.

DistributedDataParallel is not used: it reduces gradients in hooks of the backward pass, which do not see
the double backward of a force loss rightly, and a head that gets no gradient on some process stalls it.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn

from dpa2calc.errors import ConfigError


@dataclass(frozen=True)
class Processes:
    """This process's place among those of the run; the default is a run of one process."""

    rank: int = 0
    size: int = 1

    @classmethod
    def from_environment(cls, device: str | None = "cpu") -> Processes:
        """Join the group that `torchrun` announced; without torchrun a run of one process.

        Args:
            device: as in `TrainConfig`; None is a CUDA device where there is one. With "cuda" or None each
                process takes the GPU of its local rank.

        Raises:
            ConfigError: the process group cannot be made.
        """
        size = int(os.environ.get("WORLD_SIZE", "1"))
        if size == 1:
            return cls()
        on_cuda = torch.cuda.is_available() if device is None else device.startswith("cuda")
        if on_cuda and device in (None, "cuda"):  # else all would share the first
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
        if not dist.is_initialized():
            try:
                dist.init_process_group("nccl" if on_cuda else "gloo")
            except (RuntimeError, ValueError) as error:
                raise ConfigError(
                    f"WORLD_SIZE is {size} but no process group could be made: {error}; start with torchrun"
                ) from error
        return cls(dist.get_rank(), dist.get_world_size())

    @property
    def first(self) -> bool:
        """Whether this process writes the files."""
        return self.rank == 0

    def require_batches(self, batches_per_step: int) -> None:
        """Raise a ConfigError where a process would have no batch in a step."""
        if batches_per_step < self.size:
            raise ConfigError(
                f"batches_per_step = {batches_per_step} is below the number of processes ({self.size}); give "
                "each process at least one batch a step"
            )

    def sum(self, values: Tensor) -> Tensor:
        """The sum of a tensor over all processes, on the tensor's device."""
        if self.size == 1:
            return values
        place = "cuda" if dist.get_backend() == "nccl" else "cpu"
        moved = values.to(place, copy=True)
        dist.all_reduce(moved)
        return moved.to(values.device)

    def of_first(self, values: Tensor) -> Tensor:
        """The first process's tensor, on all of them; the others' has its shape and dtype."""
        if self.size == 1 or not values.numel():
            return values
        place = "cuda" if dist.get_backend() == "nccl" else "cpu"
        moved = values.to(place, copy=True).contiguous()
        dist.broadcast(moved, 0)
        return moved.to(values.device)

    def text_of_first(self, text: str) -> str:
        """The first process's text, on all of them."""
        data = torch.tensor(list(text.encode()) if self.first else [], dtype=torch.uint8)
        length = int(self.of_first(torch.tensor([len(data)])))
        return bytes(self.of_first(data if self.first else data.new_zeros(length)).tolist()).decode()

    def share(self, module: nn.Module) -> None:
        """Give every process the first one's weights and buffers."""
        if self.size == 1:
            return
        with torch.no_grad():
            for value in module.state_dict().values():
                value.copy_(self.of_first(value))

    def sum_gradients(self, parameters: list[nn.Parameter], flags: Tensor) -> Tensor:
        """Sum gradients over all processes; returns the summed flags.

        A parameter without a gradient on every process stays without one, so that the optimiser
        leaves it and its moments alone, as in a run of one process.

        Args:
            flags: (n,) numbers to sum in the same message, such as "my loss is not finite".
        """
        if self.size == 1:
            return flags
        like = parameters[0]
        present = torch.tensor([p.grad is not None for p in parameters], dtype=like.dtype, device=like.device)
        pieces = [p.grad.reshape(-1) if p.grad is not None else p.new_zeros(p.numel()) for p in parameters]
        flat = torch.cat([*pieces, present, flags.to(like)])
        dist.all_reduce(flat)
        *summed, counts, flags_sum = flat.split([*map(len, pieces), len(parameters), len(flags)])
        for p, piece, count in zip(parameters, summed, counts.tolist()):
            p.grad = piece.view_as(p).clone() if count else None
        return flags_sum.to(flags)


ALONE = Processes()
