"""Runs in deepmd-kit's own environment: evaluate models, write results to an npz file.

Usage: python deepmd_evaluate.py STRUCTURES.npz OUT.npz MODEL [MODEL ...]; MODEL may be FILE@HEAD.
"""

import sys

import numpy as np
from deepmd.infer.deep_pot import DeepPot


def main() -> None:
    structures, out, *models = sys.argv[1:]
    results = {}
    with np.load(structures) as file:
        names = sorted({key.split("/")[0] for key in file.files})
        for model in models:
            path, _, head = model.partition("@")
            potential = DeepPot(path, head=head) if head else DeepPot(path)
            index = {symbol: i for i, symbol in enumerate(potential.get_type_map())}
            for name in names:
                types = [index[symbol] for symbol in file[f"{name}/symbols"]]
                cell = file[f"{name}/cell"].reshape(1, 9) if file[f"{name}/pbc"].any() else None
                energy, forces, virial = potential.eval(file[f"{name}/positions"].reshape(1, -1), cell, types)
                results[f"{model}|{name}|energy"] = energy.reshape(())
                results[f"{model}|{name}|forces"] = forces.reshape(-1, 3)
                results[f"{model}|{name}|virial"] = virial.reshape(3, 3)
    np.savez(out, **results)


main()
