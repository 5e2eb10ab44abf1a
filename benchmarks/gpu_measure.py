"""How the benchmark of a GPU measures: times with the device waited for, phases, waits, kernels, memory."""

import importlib.metadata
import os
import resource
import statistics
import subprocess
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from ase import Atoms
from common import machine
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

PACKAGES = ("torch", "triton", "numpy", "scipy", "numba", "ase", "vesin", "h5py", "safetensors")
CALLS = ("cudaLaunchKernel", "cuLaunchKernelEx", "cudaStreamSynchronize", "cudaMemcpyAsync")


def wait(device: str) -> None:
    """Let a GPU finish what it was given."""
    if device != "cpu":
        torch.cuda.synchronize()


def about(device: str) -> dict[str, Any]:
    """The machine, its packages, and the rates that set the limits."""
    out = machine()
    out["packages"] = {name: _version(name) for name in PACKAGES}
    out["tf32"] = [torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32]
    out["threads"] = torch.get_num_threads()
    out["matmul_tflops"] = {
        d: round(_matmul_rate(device, getattr(torch, d)), 3) for d in ("float32", "float64")
    }
    if device != "cpu":
        properties = torch.cuda.get_device_properties(0)
        out |= {"gpu": properties.name, "memory_gb": round(properties.total_memory / 2**30, 1)}
        out |= {"capability": list(torch.cuda.get_device_capability(0)), "cuda": torch.version.cuda}
        out["copy_gb_per_s"] = round(_copy_rate(device))
        query = [
            "nvidia-smi",
            "--query-gpu=name,driver_version,clocks.sm,clocks.mem",
            "--format=csv,noheader",
        ]
        out["nvidia_smi"] = subprocess.run(query, capture_output=True, text=True, check=False).stdout.strip()
    return out


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "-"


def _best(work: Callable[[], Any], device: str, repeats: int = 8) -> float:
    """Smallest seconds of some calls."""
    best = float("inf")
    for _ in range(repeats):
        wait(device)
        begin = time.perf_counter()
        work()
        wait(device)
        best = min(best, time.perf_counter() - begin)
    return best


def _matmul_rate(device: str, dtype: torch.dtype) -> float:
    size = 4096 if device != "cpu" else 1024
    a, b = (torch.randn(size, size, dtype=dtype, device=device) for _ in range(2))
    return 2 * size**3 / _best(lambda: a @ b, device) / 1e12


def _copy_rate(device: str) -> float:
    a = torch.randn(2**28, device=device)
    b = torch.empty_like(a)
    return 2 * a.numel() * a.element_size() / _best(lambda: b.copy_(a), device) / 1e9


class Steps:
    """Calls of a calculator with new positions each, as in a trajectory whose neighbour list lasts."""

    def __init__(self, calculator: Any, atoms: Atoms, device: str):
        self.atoms, self.device = atoms.copy(), device
        self.atoms.calc, self.start = calculator, atoms.positions.copy()
        self.rng = np.random.default_rng(0)

    def __call__(self) -> None:
        """Energy, forces and, of a periodic structure, stress."""
        self.atoms.positions = self.start + self.rng.normal(0.0, 0.01, self.start.shape)
        self.atoms.get_forces()
        if self.atoms.pbc.all():
            self.atoms.get_stress()

    def timed(self) -> float:
        """Seconds of one step."""
        return _best(self, self.device, 1)

    def times(self, seconds: float, most: int = 30) -> list[float]:
        """Of three steps at least, `most` at most, and as many as go into `seconds`."""
        end, found = time.perf_counter() + seconds, [self.timed()]
        while len(found) < 3 or (len(found) < most and time.perf_counter() < end):
            found.append(self.timed())
            if time.perf_counter() > end + 2 * seconds:
                break
        return found


def phases(steps: Steps, repeats: int = 3) -> dict[str, float]:
    """Milliseconds of the parts of a step, the device waited for after each; `search` is in `graph`.

    A part is left out where the code has no such place any more.
    """
    from dpa2calc.engine import dense as evaluation
    from dpa2calc.model.potential import Potential
    from dpa2calc.structures import graph_builder
    from dpa2calc.structures import verlet as neighbors

    places = {
        "search": (neighbors.NeighborList, "update"),
        "graph": (graph_builder.GraphBuilder, "__call__"),
        "forward": (Potential, "atomic_energies"),
        "backward": (torch.autograd, "grad"),
        "results": (evaluation, "split"),
    }
    spent: dict[str, list[float]] = {}
    for _ in range(repeats):
        here: Counter[str] = Counter()
        with ExitStack() as stack:
            for name, (owner, attribute) in places.items():
                if hasattr(owner, attribute):
                    work = _clocked(getattr(owner, attribute), name, here, steps.device)
                    stack.enter_context(mock.patch.object(owner, attribute, work))
            here["whole"] = steps.timed()  # type: ignore[assignment]
        here["rest"] = here["whole"] - sum(here[n] for n in ("graph", "forward", "backward", "results"))
        for name, seconds in here.items():
            spent.setdefault(name, []).append(seconds)
    return {name: round(1e3 * statistics.median(values), 3) for name, values in spent.items()}


def _clocked(work: Callable[..., Any], name: str, spent: Counter[str], device: str) -> Callable[..., Any]:
    def timed(*args: Any, **kwargs: Any) -> Any:
        wait(device)
        begin = time.perf_counter()
        try:
            return work(*args, **kwargs)
        finally:
            wait(device)
            spent[name] += time.perf_counter() - begin  # type: ignore[assignment]

    return timed


def waits(step: Callable[[], Any], device: str) -> dict[str, Any]:
    """How often a step makes the CPU wait for the GPU, by PyTorch's own count, and where."""
    if device == "cpu":
        return {}
    step()
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            step()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    mine = [w for w in seen if "called a synchronizing" in str(w.message)]
    places = Counter(f"{Path(w.filename).name}:{w.lineno}" for w in mine)
    return {"synchronisations": len(mine), "synchronisations_at": dict(places.most_common(40))}


def kernels(step: Callable[[], Any], device: str, title: str, report: Path) -> dict[str, Any]:
    """Time on the device and calls of the CUDA runtime in one step; the table of kernels goes to a file."""
    activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if device != "cpu" else [])
    step()
    wait(device)
    with profile(activities=activities) as found:
        step()
        wait(device)
    rows = found.key_averages()
    key = "self_cpu_time_total" if device == "cpu" else "self_device_time_total"
    # On a GPU a kernel's time stands twice: in its own row, and in that of the operation that started it.
    own = [row for row in rows if device == "cpu" or row.device_type != DeviceType.CPU]
    busy = sum(getattr(row, key, 0.0) for row in own)
    with report.open("a") as file:
        file.write(f"\n## {title}\n{rows.table(sort_by=key, row_limit=25, max_name_column_width=70)}\n")
    calls = {row.key: row.count for row in rows if row.key in CALLS}
    return {"busy_ms": round(busy / 1e3, 3), "runtime_calls": calls}


def gflop(step: Callable[[], Any]) -> float:
    """Matrix products of one step, forward and backward, 10^9 floating point operations."""
    with FlopCounterMode(display=False) as counter:
        step()
    return counter.get_total_flops() / 1e9


@contextmanager
def peak_memory(device: str, record: dict[str, Any]) -> Iterator[None]:
    """Puts the peak of what PyTorch holds on the device, or of the whole process on a CPU, into a record."""
    if device == "cpu":
        yield
        record["process_peak_mb"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
        return
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    try:
        yield
    finally:
        record["peak_mb"] = round(torch.cuda.max_memory_allocated() / 2**20)


def load_average() -> list[float]:
    """Of the last minutes: whether others were at work."""
    return [round(value, 1) for value in os.getloadavg()]
