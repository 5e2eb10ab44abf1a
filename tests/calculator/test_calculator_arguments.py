"""Arguments of a wrong type are refused with the value seen; numbers and booleans of NumPy are accepted."""

from typing import Any

import numpy as np
import pytest
import torch

from dpa2calc import DPA2Calculator, load_model
from dpa2calc.engine.dispersion import Dispersion
from dpa2calc.errors import CheckpointError, ConfigError, DPA2CalcError, HeadError
from dpa2calc.model.potential import Potential
from dpa2calc.store.checkpoint import checkpoint_info
from dpa2calc.store.registry import resolve_model

STUDENT = "student-water"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"skin": "a"}, "skin = 'a' is not allowed; allowed: a finite number"),
        ({"skin": "1.0"}, "skin = '1.0' is not allowed"),
        ({"skin": None}, "skin = None is not allowed"),
        ({"skin": True}, "skin = True is not allowed"),
        ({"skin": float("nan")}, "skin = nan is not allowed"),
        ({"skin": -1.0}, "skin = -1.0 Å; it must be a finite number, 0 or more"),
        ({"skin": 1e300}, r"skin = 1e\+300 Å; it must be at most 1e\+08 Å"),
        ({"committee": 5}, "committee = 5; give a list"),
        ({"committee": {"student-water": "H2O"}}, "committee = {.*}; give a list"),
        ({"committee": [5]}, "committee has 5"),
        ({"committee": [("a", "b", "c")]}, "committee has .*pairs"),
        ({"committee": ["no.pt"]}, "committee has no.pt: there is no file"),
        ({"committee": [(None, "Cu")]}, "committee has .*student-water.*: .* no head 'Cu'"),
        ({"committee": [None]}, "committee has None"),
        ({"committee": np.array(["student-water"])}, "committee = array.*; give a list"),
        ({"committee": np.array("student-water")}, "committee = array.*; give a list"),
        (
            {"allow_unseen_elements": "no"},
            "allow_unseen_elements = 'no' is not allowed; allowed: true or false",
        ),
        ({"allow_unseen_elements": 1}, "allow_unseen_elements = 1 "),
        ({"compress": "false"}, "compress = 'false' is not allowed"),
        ({"compress": 0}, "compress = 0 is not allowed"),
        ({"device": "meta"}, "device = 'meta' is not supported"),
        ({"device": True}, "device = True cannot be used"),
        ({"device": 1.5}, "device = 1.5 cannot be used"),
        ({"device": 10**400}, r"device = .* cannot be used"),
        ({"device": 2**40}, "device = 1099511627776 cannot be used"),
        ({"device": "cuda:99999999999999999999"}, "device = .* cannot be used"),
        ({"dtype": "float16"}, "dtype = 'float16' is not allowed"),
        ({"dtype": 32}, "dtype = 32 is not allowed"),
        ({"dispersion": 5}, "dispersion = 5"),
        ({"dispersion": "False"}, "dispersion = 'False'"),
    ],
)
def test_wrong_types_are_refused(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises((ConfigError, CheckpointError, HeadError), match=words):
        DPA2Calculator(STUDENT, **arguments)


@pytest.mark.parametrize("model", [5, None, ["default"], b"default", torch.nn.Linear(2, 2)])
def test_a_model_is_a_name_a_path_or_a_potential(model: Any) -> None:
    with pytest.raises(ConfigError, match=r"model = .* is not allowed"):
        DPA2Calculator(model)


@pytest.mark.parametrize("head", [5, ["a"], b"a"])
def test_a_head_is_a_name(head: Any) -> None:
    with pytest.raises(DPA2CalcError, match="is not a name"):
        DPA2Calculator(STUDENT, head)


def test_a_potential_without_numbers_is_refused() -> None:
    config = checkpoint_info(resolve_model(STUDENT)).config
    with pytest.raises(ConfigError, match="no numbers"):
        DPA2Calculator(Potential(config).to("meta"))


def test_numpy_values_are_accepted() -> None:
    calc = DPA2Calculator(
        STUDENT,
        skin=np.float32(0.5),
        allow_unseen_elements=np.True_,
        compress=np.False_,
        dispersion=np.False_,
    )
    assert calc.skin == 0.5 and calc.allow_unseen_elements is True and calc.dispersion is None
    assert DPA2Calculator(STUDENT, skin=np.int64(2), compress=np.array(False)).skin == 2.0


@pytest.mark.parametrize("options", [{"batch_atoms": "a"}, {"batch_atoms": 1.5}, {"stresses": "no"}])
def test_options_of_evaluate(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="is not allowed"):
        DPA2Calculator(STUDENT, compress=False).evaluate([], **options)


def test_settings_of_dispersion() -> None:
    with pytest.raises(ConfigError, match=r"dispersion\.three_body = 'no'"):
        Dispersion(functional="pbe", three_body="no")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"dispersion\.a1 = '0\.4'"):
        Dispersion(s8=1.0, a1="0.4", a2=2.0)  # type: ignore[arg-type]


def test_dtype_of_load_model() -> None:
    with pytest.raises(ConfigError, match="dtype = 'float16'"):
        load_model(STUDENT, dtype="float16")  # type: ignore[arg-type]
