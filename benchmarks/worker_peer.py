"""One engine of a benchmark in its own process: the ASE calculator of SevenNet-0, CHGNet or MACE, float32.

Knows nothing of dpa2calc, because it runs in the peers' environment. argv: name, structure file, threads.
"""

import contextlib
import os
import sys

import numpy as np
from worker_common import serve


def mace():
    """MACE as large as its medium foundation models, with random weights."""
    import torch
    from e3nn import o3
    from mace import modules
    from mace.calculators import MACECalculator

    block = modules.interaction_classes["RealAgnosticResidualInteractionBlock"]
    numbers = list(range(1, 90))
    torch.manual_seed(0)
    network = modules.ScaleShiftMACE(
        r_max=6.0, num_bessel=10, num_polynomial_cutoff=5, max_ell=3, num_interactions=2,
        interaction_cls=block, interaction_cls_first=block, num_elements=len(numbers),
        hidden_irreps=o3.Irreps("128x0e + 128x1o"), MLP_irreps=o3.Irreps("16x0e"),
        atomic_energies=np.zeros(len(numbers)), avg_num_neighbors=60.0, atomic_numbers=numbers, correlation=3,
        gate=torch.nn.functional.silu, atomic_inter_scale=1.0, atomic_inter_shift=0.0,
    )  # fmt: skip
    return MACECalculator(models=[network.float()], device="cpu", default_dtype="float32")


def sevennet():
    """SevenNet-0 of 11 July 2024."""
    from sevenn.calculator import SevenNetCalculator

    return SevenNetCalculator("7net-0", device="cpu")


def chgnet():
    """CHGNet 0.3.0."""
    from chgnet.model.dynamics import CHGNetCalculator

    return CHGNetCalculator(use_device="cpu")


def main() -> None:
    """Serve one of them."""
    os.environ["TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"] = "1"  # e3nn's constants and the peers' checkpoints
    import torch

    torch.set_num_threads(int(sys.argv[3]))
    with contextlib.redirect_stdout(sys.stderr):  # they say what they load
        calculator = {"mace": mace, "sevennet": sevennet, "chgnet": chgnet}[sys.argv[1]]()
    serve(calculator, sys.argv[2])


if __name__ == "__main__":
    main()
