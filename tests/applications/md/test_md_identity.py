"""A restart belongs to one structure, calculator and options; what is damaged or foreign is refused."""

import json
import sys
import types
import warnings

import numpy as np
import pytest
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones
from ase.constraints import FixAtoms
from ase.io import read, write
from rewriting import rewrite_arrays

from dpa2calc.applications import MDConfig, run_md
from dpa2calc.errors import ConfigError, DataError, OutputError, StructureError
from dpa2calc.files.lock import locked

OPTIONS = {
    "temperature": 300, "sync_interval": 10, "log_interval": 5, "trajectory_interval": 4, "progress": False,
}  # fmt: skip


def run(atoms, folder, steps=20, suffix="traj", **changes):
    files = {"trajectory": folder / f"md.{suffix}", "log": folder / "md.csv", "restart": folder / "md.npz"}
    return run_md(atoms, steps=steps, **{**OPTIONS, **files, **changes})


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda a: a.positions.__setitem__((0, 0), 0.01), "structure: positions"),
        (lambda a: a.set_masses([200.0] * len(a)), "structure: masses"),
        (lambda a: a.set_constraint(FixAtoms([0])), "structure: constraints"),
        (lambda a: a.set_cell(a.cell * 1.01), "structure: cell"),
        (lambda a: a.set_pbc([True, True, False]), "structure: pbc"),
        (lambda a: a.set_momenta(np.ones((len(a), 3))), "structure: momenta"),
        (lambda a: a.info.update(charge=1), "structure: charge"),
        (lambda a: setattr(a, "calc", LennardJones()), r'calculator: class \("EMT" -> "LennardJones"\)'),
        (lambda a: setattr(a, "calc", EMT(asap_cutoff=True)), "calculator: parameters"),
    ],
)
def test_another_structure_or_calculator_is_refused_and_named(copper, tmp_path, change, named):
    run(copper(), tmp_path)
    kept = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    other = copper()
    change(other)
    with pytest.raises(
        ConfigError, match=rf"md\.npz belongs to other work; .*{named}.* overwrite=True to st"
    ):
        run(other, tmp_path, steps=40)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == kept
    assert run(other, tmp_path, overwrite=True, steps=4, lost_distance=None).n_steps <= 4


def test_total_steps_restart_times_progress_and_unused_momenta_may_change(copper, tmp_path):
    run(copper(), tmp_path, velocities="new")
    moving = copper()
    moving.set_momenta(np.ones((len(moving), 3)))
    moving.info["name"] = "a label"
    result = run(moving, tmp_path, steps=30, restart_seconds=1.0, velocities="new")
    assert result.n_steps == 30 and result.status == "finished"


DAMAGE = {
    "step of text": lambda h, a: h.update(step="x"),
    "step 1.5": lambda h, a: h.update(step=1.5),
    "step below 0": lambda h, a: h.update(step=-5),
    "step True": lambda h, a: h.update(step=True),
    "no step": lambda h, a: h.pop("step"),
    "another step": lambda h, a: h.update(step=10),
    "an atom fewer": lambda h, a: a.update(positions=a["positions"][:-1]),
    "NaN": lambda h, a: a.update(momenta=a["momenta"] * np.nan),
    "text for numbers": lambda h, a: a.update(cell=a["cell"].astype(str)),
    "no cell": lambda h, a: a.pop("cell"),
    "no atoms": lambda h, a: a.update({k: v[:0] for k, v in a.items() if len(np.shape(v)) and len(v) == 8}),
    "foreign random state": lambda h, a: h.update(rng={"a": 1}),
    "random state of another generator": lambda h, a: h["rng"].update(bit_generator="MT19937"),
    "options a list": lambda h, a: h.update(config=[]),
    "unknown option": lambda h, a: h["config"].update(colour=3),
    "wrong option": lambda h, a: h["config"].update(steps="many"),
    "marks a number": lambda h, a: h.update(marks=3),
    "mark a number": lambda h, a: h["marks"].update(log=3),
    "mark below 0": lambda h, a: h["marks"]["trajectory"].update(frames=-3),
    "mark of text": lambda h, a: h["marks"]["log"].update(bytes="all"),
    "mark too large": lambda h, a: h["marks"]["trajectory"].update(frames=100),
    "identity of text": lambda h, a: h.update(identity={"structure": "mine"}),
    "volume of text": lambda h, a: h.update(first_volume="big"),
    "version 99": lambda h, a: h.update(version=99),
    "thermostat of another shape": lambda h, a: a.update({"integrator/_thermostat._eta": np.zeros(7)}),
    "thermostat missing": lambda h, a: a.pop("integrator/_thermostat._eta"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_restart_file_is_refused(copper, tmp_path, name):
    run(copper(), tmp_path, thermostat="nose-hoover")
    rewrite_arrays(tmp_path / "md.npz", DAMAGE[name])
    with pytest.raises((DataError, ConfigError), match=r"md\.(npz|traj|csv)|the restart file"):
        run(copper(), tmp_path, steps=40, thermostat="nose-hoover")


@pytest.mark.parametrize("content", [b"", b"PK", b"\0" * 1000, b"[" * 10_000])
def test_a_foreign_restart_file_is_refused(copper, tmp_path, content):
    (tmp_path / "md.npz").write_bytes(content)
    with pytest.raises(DataError, match=r"md\.npz is not a restart file of run_md"):
        run(copper(), tmp_path)


@pytest.mark.parametrize("suffix", ["traj", "extxyz"])
@pytest.mark.parametrize(
    "damage", ["half", "first bytes", "end", "another run", "other atoms", "gone", "log"]
)
def test_a_damaged_or_foreign_trajectory_or_log_is_refused(copper, tmp_path, suffix, damage):
    run(copper(), tmp_path, suffix=suffix)
    path = tmp_path / ("md.csv" if damage == "log" else f"md.{suffix}")
    content = path.read_bytes()
    (tmp_path / "other").mkdir()
    if damage == "half":
        path.write_bytes(content[: len(content) // 2])
    elif damage == "first bytes":  # ASE's reader says whatever it says; extxyz looks at the end alone
        path.write_bytes(b"\0" * 60 + content[60:] if suffix == "traj" else b"\0" * len(content))
    elif damage == "end":
        path.write_bytes(content[:-40] + b"\0" * 40)
    elif damage == "another run":
        other = run(copper(), tmp_path / "other", suffix=suffix, seed=5, steps=60)
        path.write_bytes(open(other.trajectory, "rb").read())
    elif damage == "other atoms":
        other = run(copper((3, 1, 1)), tmp_path / "other", suffix=suffix, steps=60)
        path.write_bytes(open(other.trajectory, "rb").read())
    elif damage == "gone":
        path.unlink()
    else:
        path.write_bytes(content.replace(b"5,", b"6,", 1))
    with pytest.raises(DataError, match=rf"{path.name} .*(put the|delete the restart file)"):
        run(copper(), tmp_path, suffix=suffix, steps=40)


def test_a_refused_start_leaves_nothing_that_stands_in_the_way(copper, tmp_path):
    close = copper()
    close.positions[0] += 0.8
    with pytest.raises(StructureError, match="the first configuration is no start for a run"):
        run(close, tmp_path, force_limit=1e-3)
    assert not list(tmp_path.iterdir())
    result = run(copper(), tmp_path)
    assert result.step.tolist() == [0, 5, 10, 15, 20]


def old(path, step=None):
    """As versions before identities wrote restart files."""

    def change(header, arrays):
        for key in ("identity", "machine"):
            header.pop(key)
        for mark in header["marks"].values():
            mark.pop("name"), mark.pop("content", None), mark.pop("last", None)
        if step is not None:
            header["step"] = step

    rewrite_arrays(path, change)


def test_restart_files_of_earlier_versions_open_with_one_warning(copper, tmp_path):
    run(copper(), tmp_path)
    old(tmp_path / "md.npz")
    with pytest.warns(UserWarning, match="did not note the structure and the calculator") as found:
        run(copper(), tmp_path, steps=30)
    assert len(found) == 1 and found[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # written anew
        assert run(copper(), tmp_path, steps=40).step.tolist() == list(range(0, 41, 5))
    assert [frame.info["step"] for frame in read(tmp_path / "md.traj", ":")] == list(range(0, 41, 4))


def test_a_restart_of_step_0_of_an_earlier_version_does_not_poison_the_next_start(copper, tmp_path):
    whole = run(copper(), tmp_path)
    rewrite_arrays(tmp_path / "md.npz", lambda h, a: a.update(positions=np.zeros_like(a["positions"])))
    old(tmp_path / "md.npz", step=0)
    with pytest.warns(UserWarning, match="earlier version"):
        again = run(copper(), tmp_path)
    assert np.array_equal(again.positions, whole.positions) and again.step.tolist() == [0, 5, 10, 15, 20]


def test_another_number_of_threads_is_said(copper, tmp_path, monkeypatch):
    torch = types.SimpleNamespace(get_num_threads=lambda: 1)
    monkeypatch.setitem(sys.modules, "torch", torch)
    run(copper(), tmp_path)
    torch.get_num_threads = lambda: 4
    with pytest.warns(UserWarning, match=r"written with threads 1, this run has 4: .* last bits may differ"):
        run(copper(), tmp_path, steps=30)


def test_a_second_run_on_any_of_the_files_is_refused(copper, tmp_path):
    for name in ("md.npz", "md.traj", "md.csv"):
        with (
            locked(tmp_path / name),
            pytest.raises(ConfigError, match=rf"another run is writing to .*{name}"),
        ):
            run(copper(), tmp_path)
    with pytest.raises(ConfigError, match="each file needs a name of its own"):
        run(copper(), tmp_path, log=tmp_path / "md.npz")
    assert run(copper(), tmp_path).status == "finished"


def test_a_place_that_cannot_be_written_is_told_before_the_run(copper, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        run(copper(), tmp_path / "file")


def test_files_of_others_are_not_taken_for_those_of_a_killed_run(copper, tmp_path):
    run(copper(), tmp_path, steps=5)  # before its first synchronised step: the restart file is of step 0
    write(tmp_path / "precious.extxyz", copper())
    kept = (tmp_path / "precious.extxyz").read_bytes()
    with pytest.raises(DataError, match=r"precious\.extxyz exists"):
        run(copper(), tmp_path, trajectory=tmp_path / "precious.extxyz")
    assert (tmp_path / "precious.extxyz").read_bytes() == kept


@pytest.mark.parametrize(
    ("given", "plain"),
    [
        ({"steps": np.int64(5)}, {"steps": 5}),
        ({"timestep_fs": np.float32(1.0)}, {"timestep_fs": 1.0}),
        ({"temperature": np.array([100, 300])}, {"temperature": (100.0, 300.0)}),
        ({"temperature": np.array(250)}, {"temperature": 250.0}),
        ({"pressure_gpa": [np.float64(0), np.int32(2)], "ensemble": "npt"}, {"pressure_gpa": (0.0, 2.0)}),
        ({"seed": np.array(3)}, {"seed": 3}),
        ({"force_limit": np.float64(5)}, {"force_limit": 5.0}),
        ({"fix_com": np.bool_(False)}, {"fix_com": False}),
    ],
)
def test_numbers_of_numpy_are_numbers(given, plain):
    config = MDConfig(**{"steps": 5, **given})
    for name, value in plain.items():
        assert getattr(config, name) == value and type(getattr(config, name)) is type(value)
    json.dumps(config.to_dict())


@pytest.mark.parametrize(
    "options",
    [
        {"steps": "5"}, {"steps": 5.5}, {"steps": True}, {"steps": np.array([5, 6])}, {"timestep_fs": "1"},
        {"timestep_fs": True}, {"temperature": "300"}, {"temperature": np.array(["a"])}, {"seed": "x"},
        {"seed": -1}, {"restart_seconds": "soon"}, {"restart_seconds": float("nan")}, {"fix_com": "no"},
        {"ensemble": 3}, {"ensemble": []}, {"force_limit": [1.0]}, {"chain_length": None},
        {"temperature": (True, 300)}, {"pressure_gpa": None}, {"log": 5}, {"overwrite": "no"}, {"config": {}},
    ],
)  # fmt: skip
def test_text_and_other_types_are_refused_as_options(copper, options):
    with pytest.raises(ConfigError, match=rf"^{next(iter(options))}\b.* is "):
        run_md(copper(), **{"steps": 5, "progress": False, **options})
