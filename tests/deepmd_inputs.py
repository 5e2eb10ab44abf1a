"""deepmd-kit's `input.json` with what a test changes."""

import json
from pathlib import Path
from typing import Any

INPUTS = Path(__file__).parent / "data" / "inputs"


def changed_input(**changes: Any) -> dict[str, Any]:
    content = json.loads((INPUTS / "dpa2_small.json").read_text())
    for path, value in changes.items():
        section = content
        *parents, last = path.split("__")
        for parent in parents:
            section = section[parent]
        section[last] = value
    return content


def water_input(training: dict[str, Any]) -> dict[str, Any]:
    descriptor = {"type": "se_e2_a", "rcut": 6.0, "sel": [46, 92]}
    model = {"type_map": ["O", "H"], "descriptor": descriptor, "fitting_net": {}}
    return {"model": model, "training": training}
