"""Runs in deepmd-kit's own environment: what its options are when nothing is given.

Usage: python option_defaults.py OUT.json

"given" has the shortest descriptor sections; "input" what deepmd-kit makes of them in an `input.json`;
"classes" the defaults of its classes, which hold where a model file lacks an option.
"""

import inspect
import json
import sys
from typing import Any

SHORTEST: dict[str, dict[str, Any]] = {
    "dpa2": {
        "repinit": {"rcut": 6.0, "rcut_smth": 0.5, "nsel": 100},
        "repformer": {"rcut": 4.0, "rcut_smth": 0.5, "nsel": 40},
    },
    "se_atten": {"sel": 100},
    "se_atten_v2": {"sel": 100},
    "se_e2_a": {"sel": [5, 6]},
}


def input_defaults() -> dict[str, Any]:
    from deepmd.utils.argcheck import normalize

    run = {"numb_steps": 1, "training_data": {"systems": ["none"]}}
    rate = {"type": "exp", "start_lr": 1e-3, "stop_lr": 1e-5, "decay_steps": 1}
    found: dict[str, Any] = {}
    for kind, section in SHORTEST.items():
        model = {"type_map": ["O", "H"], "descriptor": {"type": kind} | section, "fitting_net": {}}
        whole = {"model": model, "learning_rate": rate, "loss": {"type": "ener"}, "training": run}
        model = normalize(whole)["model"]
        found[kind], found["fitting_net"] = model.pop("descriptor"), model.pop("fitting_net")
        found["model"] = model
    return found


def class_defaults() -> dict[str, Any]:
    from deepmd.dpmodel.descriptor.dpa2 import RepformerArgs, RepinitArgs
    from deepmd.pt.model.descriptor import DescrptDPA1, DescrptDPA2, DescrptSeA, DescrptSeAttenV2
    from deepmd.pt.model.task.ener import EnergyFittingNet

    classes = {
        "dpa2": DescrptDPA2,
        "repinit": RepinitArgs,
        "repformer": RepformerArgs,
        "se_atten": DescrptDPA1,
        "se_atten_v2": DescrptSeAttenV2,
        "se_e2_a": DescrptSeA,
        "fitting_net": EnergyFittingNet,
    }
    found: dict[str, Any] = {}
    for kind, cls in classes.items():
        given = inspect.signature(cls.__init__).parameters.items()
        found[kind] = {name: p.default for name, p in given if p.default is not p.empty}
    return found


def main() -> None:
    with open(sys.argv[1], "w") as file:
        found = {"given": SHORTEST, "input": input_defaults(), "classes": class_defaults()}
        json.dump(found, file, indent=1, sort_keys=True)
        file.write("\n")


main()
