"""Verbs that take one structure refuse a file of many, instead of taking one of them in silence."""

import pytest
from ase.build import bulk
from ase.io import read, write

from dpa2calc.cli.arguments.structures import read_frame
from dpa2calc.cli.main import main
from dpa2calc.errors import DataError

VERBS = ["relax", "md", "eos", "elastic", "phonons", "vibrations", "vacancy", "surface"]


@pytest.fixture
def frames(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return [bulk("Cu", a=a) for a in (3.5, 3.6, 3.7)]


@pytest.mark.parametrize("verb", VERBS)
def test_verbs_refuse_a_file_of_many(verb, frames, capsys):
    write("many.extxyz", frames)
    options = {"md": ["--steps", "1"], "surface": ["--miller", "1", "1", "1"]}.get(verb, [])
    assert main([verb, "many.extxyz", "--calculator", "emt", *options]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"dpa2calc {verb}: many.extxyz holds more than one frame, and this command takes")
    assert "--index N or many.extxyz@N (0 is the first frame, -1 the last)" in error


@pytest.mark.parametrize("kind", ["extxyz", "traj", "cif"])
def test_frame_is_named(kind, frames):
    write(f"many.{kind}", frames)
    volumes = [frame.get_volume() for frame in frames]
    assert read_frame(f"many.{kind}", 1).get_volume() == pytest.approx(volumes[1], rel=1e-4)
    assert read_frame(f"many.{kind}@0").get_volume() == pytest.approx(volumes[0], rel=1e-4)
    assert read_frame(f"many.{kind}@-1").get_volume() == pytest.approx(volumes[2], rel=1e-4)
    with pytest.raises(DataError, match="holds more than one frame"):
        read_frame(f"many.{kind}")
    write(f"one.{kind}", frames[0])
    assert read_frame(f"one.{kind}").get_volume() == pytest.approx(volumes[0], rel=1e-4)


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ("many.extxyz --index 3", "--index 3"),
        ("many.extxyz --index -4", "--index -4"),
        ("many.extxyz@3", "many.extxyz@3"),
    ],
)
def test_a_frame_that_is_not_there_is_named_as_it_was_asked_for(words, named, frames, capsys):
    write("many.extxyz", frames)
    assert main(["relax", *words.split(), "--calculator", "emt"]) == 1
    error = capsys.readouterr().err
    assert f"many.extxyz has no frame {named[-2:].lstrip(' @')}, which {named} asks for" in error
    assert "it holds 3: 0 is the first, 2 or -1 the last" in error


def test_final_state_of_a_path_is_one_frame_too(frames, capsys):
    write("a.extxyz", frames[0])
    write("b.extxyz", frames)
    assert main(["neb", "a.extxyz", "--final", "b.extxyz", "--calculator", "emt"]) == 1
    error = capsys.readouterr().err
    assert "b.extxyz holds more than one frame" in error
    assert "name it with b.extxyz@N" in error and "--index" not in error  # which is of the first file


def test_the_named_frame_is_relaxed(frames, capsys):
    write("many.extxyz", frames)
    arguments = ["relax", "many.extxyz", "--index", "0", "--calculator", "emt", "--out", "out.extxyz"]
    assert main([*arguments, "--no-progress"]) == 0
    assert read("out.extxyz").get_volume() == pytest.approx(frames[0].get_volume())
