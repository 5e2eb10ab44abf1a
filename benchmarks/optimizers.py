"""Errors after equal numbers of steps with Adam and SOAP, on the model of examples/train_water.py.

    python benchmarks/optimizers.py DATA_FOLDER [--steps 600] [--threads 1]

DATA_FOLDER holds train.extxyz.xz of H2O-PBE0TS. Each optimiser runs at several learning rates (cosine
schedule to a hundredth); the errors are those on the same held-out frames. Prints a table and writes
results/optimizers.json.
"""

import sys
import tempfile
import time
from pathlib import Path

import torch
from common import HERE, machine, parser_for, save

from dpa2calc.training import Dataset, train

sys.path.insert(0, str(HERE.parent / "examples"))
from train_water import HEAD, model_config, train_config

RATES = {"adam": (2e-3, 5e-3, 1e-2, 2e-2), "soap": (6e-3, 1.2e-2, 2.5e-2, 5e-2)}


def main() -> None:
    """Run all and print the table."""
    parser = parser_for(__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    everything = Dataset.read(args.data / "train.extxyz.xz", name=HEAD.name)
    frames, held_out = everything.split(0.95, seed=1)
    rows = []
    print(f"{'optimiser':10} {'rate':>8} {'E meV/atom':>11} {'F meV/Å':>9} {'s/step':>7}")
    with tempfile.TemporaryDirectory() as folder:
        for optimizer, rates in RATES.items():
            for rate in rates:
                config = train_config(args.steps, 1).replace(
                    optimizer=optimizer,
                    learning_rate=rate,
                    learning_rate_stop=rate / 100,
                    validate_every=args.steps,
                    checkpoint_every=args.steps,
                )
                output = Path(folder) / f"{optimizer}-{rate}"
                start = time.perf_counter()
                result = train(
                    model_config(), frames, config, output=output, validation=held_out, progress=False
                )
                seconds = (time.perf_counter() - start) / args.steps
                errors = result.history.validation[-1]["sets"][HEAD.name]
                row = {"optimizer": optimizer, "rate": rate, "seconds": seconds, **errors}
                rows.append(row)
                shown = f"{row['energy_rmse']:11.2f} {row['force_rmse']:9.1f} {seconds:7.3f}"
                print(f"{optimizer:10} {rate:8.4f} {shown}", flush=True)
    options = {"steps": args.steps, "threads": args.threads}
    print("written:", save("optimizers", {"machine": machine(), "options": options, "rows": rows}))


if __name__ == "__main__":
    main()
