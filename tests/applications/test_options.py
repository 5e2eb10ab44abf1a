"""Options of every application: NumPy's numbers are numbers, text and other types are refused by name."""

import contextlib
import inspect
import types
import typing

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from emt_cases import with_emt

import dpa2calc.applications as applications
from dpa2calc.applications import (
    elastic_constants,
    energy_conservation,
    equation_of_state,
    perovskite,
    surface_energy,
    vacancy_formation_energy,
    vacancy_hop,
)
from dpa2calc.errors import ConfigError, OutputError, StructureError
from dpa2calc.files.lock import locked
from dpa2calc.files.typed import typed

FUNCTIONS = {
    name: getattr(applications, name)
    for name in applications.__all__
    if inspect.isfunction(getattr(applications, name))
}


def kinds(hint):
    found = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    return [kind for kind in found if kind is not types.NoneType]


def numbers():
    for name, function in FUNCTIONS.items():
        for option, hint in typing.get_type_hints(function.__wrapped__).items():
            parameter = inspect.signature(function).parameters.get(option)
            if parameter is not None and parameter.kind is not parameter.VAR_KEYWORD:
                if set(kinds(hint)) <= {int, float, bool}:
                    yield name, option


def call(name, **options):
    """Call with something of the right type for whatever else must be given."""
    hints = typing.get_type_hints(FUNCTIONS[name].__wrapped__)
    needed = [p.name for p in inspect.signature(FUNCTIONS[name]).parameters.values() if p.default is p.empty]
    right = {}
    for option in needed:
        for candidate in ("Ti", 1.0, [1.0], ["Ti"], None, "evaluate"):
            with contextlib.suppress(ConfigError):
                right[option] = typed(hints[option], candidate, option)
                break
    return FUNCTIONS[name](**{**right, **options})


@pytest.mark.parametrize(("name", "option"), list(numbers()))
def test_text_is_no_number(name, option):
    with pytest.raises(ConfigError, match=rf"^{option} = .* is not allowed; allowed: "):
        call(name, **{option: "1"})


@pytest.mark.parametrize(
    "name", [n for n, f in FUNCTIONS.items() if "folder" in inspect.signature(f).parameters]
)
def test_every_folder_is_locked_and_must_be_one_that_can_be_written(name, tmp_path):
    with locked(tmp_path), pytest.raises(ConfigError, match="another run is writing to"):
        call(name, folder=tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        call(name, folder=tmp_path / "file" / "below")
    with pytest.raises(ConfigError, match="folder = 5 is not allowed; allowed: a text or a path"):
        call(name, folder=5)


@pytest.mark.parametrize(
    "name", [n for n, f in FUNCTIONS.items() if "symprec" in inspect.signature(f).parameters]
)
@pytest.mark.parametrize("value", [0, -1.0, 1e-300, 1.5, 1e300])
def test_a_tolerance_is_checked_before_the_work(name, value):
    with pytest.raises(ConfigError, match=r"symprec is .* it must be a distance from 1e-8 to 1 Å"):
        call(name, symprec=value)


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("value", ["Cu", 5, [bulk("Cu")], None])
def test_a_structure_is_an_atoms_object(name, value):
    hints = typing.get_type_hints(FUNCTIONS[name].__wrapped__)
    for option in (option for option, hint in hints.items() if hint is Atoms and option != "return"):
        right = {other: bulk("Cu") for other, hint in hints.items() if hint is Atoms and other != "return"}
        with pytest.raises(StructureError, match=f"{name} needs an ase.Atoms object as {option}, got "):
            call(name, **{**right, option: value})


def copper():
    return with_emt(bulk("Cu", cubic=True))


def test_numbers_of_numpy_give_the_numbers_of_python():
    some = {"max_steps": np.int64(200), "progress": np.bool_(False)}
    one = equation_of_state(copper(), strains=np.linspace(-0.02, 0.02, 5), fmax=np.float64(1e-3), **some)
    two = equation_of_state(copper(), strains=np.linspace(-0.02, 0.02, 5).tolist(), fmax=1e-3, progress=False)
    assert one.volume == two.volume
    one = vacancy_formation_energy(
        copper(), site=np.int64(0), min_lengths=np.array([7.0]), fmax=np.float32(0.01), **some
    )
    assert one.site == 0 and one.energy > 0
    cell = perovskite("Ba", "Ti", repeats=np.array([1, 1, 2]), lattice_constant=np.float32(4))
    assert len(cell) == 10
    assert len(vacancy_hop(copper(), min_length=np.int64(6))[0]) > 10
    slab = {"miller": np.array([1, 0, 0]), "thicknesses": np.array([6, 8]), "vacuum": np.float32(8)}
    assert surface_energy(copper(), **slab, relax="fixed", **some).energy > 0
    small = {"strains": np.array([0.005, 0.01]), "relax_ions": np.bool_(False)}
    assert elastic_constants(copper(), **small, **some).stable
    times = {"duration_fs": np.int64(200), "equilibration_fs": np.float32(10), "seed": np.int8(1)}
    kept = energy_conservation(copper(), np.array([1.0, 2.0]), **times, progress=False)
    assert len(kept.timesteps_fs) == 2


def test_results_name_the_function_its_options_and_what_it_was_given():
    atoms = with_emt(bulk("Cu", cubic=True))
    result = equation_of_state(atoms, strains=[-0.02, -0.01, 0.0, 0.01, 0.02], progress=False)
    made = result.provenance
    assert made["function"] == "equation_of_state" and made["calculator"] == "EMT"
    assert made["fmax"] == 1e-4 and made["strains"] == [-0.02, -0.01, 0.0, 0.01, 0.02]
    assert (
        "progress" not in made
        and "folder" not in made
        and {"structure", "calculator"} <= set(made["identity"])
    )
