"""The share of a training step that SOAP takes, by CPU time of one thread.

    python benchmarks/optimizer_share.py [--steps 40]

Fine-tuning of the default model on small molecules (batches of 63 atoms, about as its defaults make them) and
on water of 192 atoms, and `small` and `medium` from fresh weights on that water, as `train` does.
Labels are the default model's. Bases are renewed in every tenth step, which the means hold. Prints a table
and writes results/optimizer_share.json.
"""

import tempfile
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.build import molecule
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import read
from common import HERE, machine, parser_for, save

from dpa2calc import DPA2Calculator
from dpa2calc.training import Dataset, FinetuneConfig, TrainConfig, finetune, train
from dpa2calc.training.fit.optimizers.soap import Soap
from dpa2calc.training.fit.trainer import Trainer

LEFT_OUT = 10  # first steps: kernels are loaded, bases begin
Spent = dict[str, list[float]]


def labelled(start: Atoms, head: str) -> Dataset:
    """Five rattled copies with the default model's labels."""
    calculator, frames = DPA2Calculator(head=head), []
    for seed in range(5):
        atoms = start.copy()
        atoms.rattle(0.05, rng=np.random.default_rng(seed))
        result = calculator.evaluate([atoms])[0]
        atoms.calc = SinglePointCalculator(atoms, energy=result["energy"], forces=result["forces"])
        frames.append(atoms)
    return Dataset.read(frames, name="new")


def timed(owner: type, name: str, spent: list[float]) -> Callable[[], None]:
    """From now on the method's CPU seconds are noted; returns what puts it back."""
    method = getattr(owner, name)

    def measured(*args: Any, **options: Any) -> Any:
        start = time.thread_time()
        try:
            return method(*args, **options)
        finally:
            spent.append(time.thread_time() - start)

    setattr(owner, name, measured)
    return lambda: setattr(owner, name, method)


def measure(what: str, atoms: int, work: Callable[[str], Any]) -> dict[str, Any]:
    """Run the training, and print and return its row."""
    spent: Spent = {"step": [], "soap": []}
    undo = [timed(Trainer, "_one_step", spent["step"]), timed(Soap, "step", spent["soap"])]
    try:
        with tempfile.TemporaryDirectory() as folder:
            work(folder)
    finally:
        for put_back in undo:
            put_back()
    step, soap = (float(np.mean(spent[key][LEFT_OUT:])) for key in ("step", "soap"))
    print(f"{what:32} {atoms:6} {1e3 * step:10.1f} {1e3 * soap:10.1f} {soap / step:8.1%}", flush=True)
    return {"training": what, "atoms": atoms, "step_s": step, "soap_s": soap, "share": soap / step}


def main() -> None:
    """Print the table."""
    parser = parser_for(__doc__)
    parser.add_argument("--steps", type=int, default=40, help="after the first ten")
    args = parser.parse_args()
    torch.set_num_threads(1)
    steps = args.steps + LEFT_OUT
    water = labelled(read(HERE.parent / "examples" / "data" / "water64.extxyz"), "H2O-PBE0TS")
    ethanol = labelled(molecule("CH3CH2OH"), "Mol-SPICE-drug")
    print(f"{'training':32} {'atoms':>6} {'step, ms':>10} {'SOAP, ms':>10} {'share':>8}")
    rows = []
    for data, head in ((ethanol, "Mol-SPICE-drug"), (water, "H2O-PBE0TS")):
        tune = FinetuneConfig(steps=steps, start_head=head, final_bias_frames=0)
        n = len(data[0].numbers)

        def tuned(folder: str, data: Dataset = data, config: FinetuneConfig = tune) -> None:
            finetune("default", data, config, output=folder, progress=False)

        rows.append(measure("default, fine-tuned", max(64 // n, 1) * n, tuned))
    for preset in ("small", "medium"):
        fresh = TrainConfig(steps=steps, batch_atoms=192, final_bias_frames=0)

        def trained(folder: str, preset: str = preset, config: TrainConfig = fresh) -> None:
            train(preset, water, config, output=folder, progress=False)

        rows.append(measure(f"{preset}, from fresh weights", 192, trained))
    saved = {"machine": machine(), "options": {"steps": args.steps}, "rows": rows}
    print("written:", save("optimizer_share", saved))


if __name__ == "__main__":
    main()
