"""`--json FILE`: what scripts read of a result."""

import argparse
import json

import numpy as np
from ase.build import bulk
from ase.calculators.emt import EMT

from dpa2calc.applications import equation_of_state
from dpa2calc.cli.arguments.as_json import add_json_argument, write_result


def test_values_units_and_provenance(tmp_path):
    atoms = bulk("Cu")
    atoms.calc = EMT()
    result = equation_of_state(atoms, relax="fixed", progress=False)
    parser = argparse.ArgumentParser()
    add_json_argument(parser)
    write_result(parser.parse_args([]), result)  # not asked for
    write_result(parser.parse_args(["--json", str(tmp_path / "eos.json")]), result)
    found = json.loads((tmp_path / "eos.json").read_text(), parse_constant=lambda word: 1 / 0)
    assert found["result"] == "EquationOfState"
    assert "`bulk_modulus` GPa" in found["fields"] and "eV" in found["fields"]
    assert found["values"]["bulk_modulus"] == result.bulk_modulus
    np.testing.assert_array_equal(found["values"]["volumes"], result.volumes)
    assert found["provenance"]["calculator"] == "EMT"
    assert found["provenance"]["identity"]["structure"]["formula"] == "Cu"
    assert "provenance" not in found["values"]
