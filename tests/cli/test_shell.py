"""What stands between a verb and the shell: encodings, pipes, permissions, warnings, torch."""

import argparse
import importlib.util
import os
import subprocess
import sys
import warnings

import pytest
from ase.build import bulk, molecule
from ase.db import connect
from ase.io import write

from dpa2calc import files
from dpa2calc.cli.arguments.training import set_threads
from dpa2calc.cli.main import main
from dpa2calc.errors import ConfigError, OutputError
from dpa2calc.files.atomic import check_writable, write_text

COMMAND = [sys.executable, "-m", "dpa2calc"]


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write("Cu.cif", bulk("Cu", cubic=True))
    write("N2.xyz", molecule("N2"))
    return tmp_path


RELAX = ["--relax", "cell", "--calculator", "emt", "--no-progress"]


def test_output_in_a_narrow_code_page(here):
    environment = {**os.environ, "PYTHONIOENCODING": "gbk"}
    run = subprocess.run([*COMMAND, "relax", "Cu.cif", *RELAX], capture_output=True, env=environment)
    text = run.stdout.decode("gbk")
    assert run.returncode == 0, run.stderr
    assert "A3" in text and "eV/A" in text


@pytest.mark.skipif(sys.platform != "linux", reason="names of files are bytes")
def test_names_that_are_no_utf8_are_written_as_they_are(here):
    name = os.fsdecode(b"caf\xe9.cif")
    os.rename("Cu.cif", name)
    environment = {**os.environ, "PYTHONIOENCODING": "utf-8:strict"}
    run = subprocess.run([*COMMAND, "relax", name, *RELAX], capture_output=True, env=environment)
    assert run.returncode == 0 and b" caf\xe9-relaxed.extxyz\n" in run.stdout, run.stderr
    assert "Å³".encode() in run.stdout
    assert main(["evaluate", name, "--csv", "a.csv", "--calculator", "emt"]) == 0
    assert (here / "a.csv").read_bytes().splitlines()[1].startswith(b"caf\xe9.cif,Cu4,")
    assert main(["screen", name, "--out", "a.db", "--calculator", "emt", "--no-progress"]) == 0
    assert next(connect("a.db").select()).data["name"] == "caf\\udce9.cif@0"


@pytest.mark.parametrize("closed", [">&-", ">&- 2>&-"])
def test_streams_that_the_shell_closed_stop_nothing(closed, here):
    line = f"{sys.executable} -m dpa2calc relax Cu.cif --calculator emt {closed}"
    run = subprocess.run(["sh", "-c", line], capture_output=True, text=True)
    assert run.returncode == 0 and "Traceback" not in run.stderr
    assert (here / "Cu-relaxed.extxyz").exists()


def test_a_pipe_that_is_closed_is_left_quietly(here):
    writer = subprocess.Popen([*COMMAND, "models", "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    writer.stdout.close()
    assert writer.stderr.read() == b"" and writer.wait() == 141


@pytest.mark.parametrize(
    "words",
    [
        "relax Cu.cif --out {place}/x.cif",
        "md Cu.cif --steps 2 --out {place}",
        "eos Cu.cif --out {place}",
        "rdf Cu.cif --pairs Cu-Cu --figure {place}/x.png",
        "evaluate Cu.cif -o {place}/x.json",
        "map Cu.cif --html {place}/x.html",
    ],
)
def test_places_that_cannot_be_written_are_found_before_the_work(words, here, capsys, monkeypatch):
    def work(*_: object, **__: object) -> None:
        raise AssertionError("work was done")

    monkeypatch.setattr("ase.calculators.emt.EMT.calculate", work)
    (here / "file").write_text("")
    base = [] if words.startswith("rdf") else ["--calculator", "emt"]
    assert main([*words.format(place="file/x").split(), *base]) == 1
    error = capsys.readouterr().err
    assert "file is a file, not a folder" in error and error.count("\n") == 1
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write anywhere
    assert main([*words.format(place="new").split(), *base]) == 1
    assert "no permission in" in capsys.readouterr().err


FULL = OSError(28, "No space left on device", "x")


@pytest.mark.parametrize(
    "error",
    [
        FULL,
        PermissionError(13, "Permission denied"),
        MemoryError(),
        RuntimeError(
            "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"
        ),
        RuntimeError("CUDA out of memory. Tried to allocate 20.00 MiB"),
    ],
)
def test_errors_of_the_system_are_one_line(error, here, capsys, monkeypatch):
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr("dpa2calc.cli.arguments.application.choose_folder", fail)
    assert main(["eos", "Cu.cif", "--calculator", "emt"]) == 1
    text = capsys.readouterr().err
    assert text.startswith("dpa2calc eos: ") and text.count("\n") == 1 and "Traceback" not in text


def test_a_file_and_a_folder_in_each_others_place(tmp_path):
    (tmp_path / "file").write_text("")
    assert check_writable(tmp_path / "new/deep/x.png") == tmp_path / "new/deep/x.png"
    assert not (tmp_path / "new").exists()
    with pytest.raises(OutputError, match="is a file, not a folder"):
        check_writable(tmp_path / "file", folder=True)
    with pytest.raises(OutputError, match="it is a folder; give the name of a file"):
        check_writable(tmp_path)


@pytest.mark.skipif(sys.platform == "win32", reason="devices and links")
def test_no_file_takes_the_place_of_a_device_a_pipe_or_a_link(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for name in ("/dev/null", "/dev/stdout", "-", tmp_path / "pipe"):
        for write_to in (check_writable, lambda path: write_text(path, "text")):
            with pytest.raises(OutputError, match="is a device or a pipe; give the name of a file"):
                write_to(name)
    (tmp_path / "disk").mkdir()
    (tmp_path / "link.json").symlink_to(tmp_path / "disk/real.json")
    write_text(tmp_path / "link.json", "text")
    assert (tmp_path / "link.json").is_symlink() and (tmp_path / "disk/real.json").read_text() == "text"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["disk", "link.json", "pipe"]


def test_warnings_are_one_line_in_the_words_of_the_verb(here):
    words = [*COMMAND, "relax", "Cu.cif", "--max-steps", "1", *RELAX]
    run = subprocess.run(words, capture_output=True, text=True)
    warning, reason = run.stderr.splitlines()
    assert warning.startswith("dpa2calc relax: warning: not converged") and "--max-steps" in warning
    assert reason.startswith("dpa2calc relax: not converged") and "optimizer=" not in reason
    before = warnings.formatwarning
    main(["models"])
    assert warnings.formatwarning is before


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ("elastc Cu.cif", "did you mean elastic?"),
        ("phase_transition", "did you mean phase-transition?"),
        ("relax --foo Cu.cif", "unrecognized arguments: --foo"),
        ("relax Cu.cif --steps 2", "relax: unrecognized arguments: --steps 2; did you mean --max-steps?"),
        ("relax Cu.cif --fmx=3", "relax: unrecognized arguments: --fmx=3; did you mean --fmax?"),
        ("rdf a.traj b.traj", "dpa2calc rdf: unrecognized arguments: b.traj; `dpa2calc rdf --help`"),
        ("md Cu.cif --steps abc", "argument --steps: invalid int value: 'abc'"),
        ("neb Cu.cif", "the following arguments are required: --final"),
        ("relax Cu.cif --conf a.toml", "argument --config: write --config in full"),
        ("md Cu.cif --steps 9 --temperature 3:a", "--temperature: '3:a': give one number, or START:END for"),
        ("md Cu.cif --steps 9 --pressure 1:2:3", "'1:2:3': give one number, or START:END for a ramp"),
    ],
)
def test_wrong_words_are_one_line(words, text, here, capsys):
    with pytest.raises(SystemExit) as left:
        main(words.split())
    error = capsys.readouterr().err
    assert left.value.code == 2 and text in error and error.count("\n") == 1


@pytest.mark.parametrize("number", [0, -2, 10**20])
def test_a_run_has_one_thread_or_more_but_not_any_number(number):
    with pytest.raises(ConfigError, match=rf"--threads is {number}; give a whole number from 1 to 1024"):
        set_threads(argparse.Namespace(threads=number))


WRONG = [
    "eos none.cif",
    "eos Cu.cif --head FOO",
    "eos Cu.cif --head SSE-PBE",
    "eos Cu.cif --head mlearn-PBE --points 3",
    "elastic Cu.cif --head mlearn-PBE --strains 0.5",
    "phonons Cu.cif --head mlearn-PBE --min-length -1",
    "surface Cu.cif --head mlearn-PBE --thicknesses 10",
    "vacancy Cu.cif --head mlearn-PBE --site 7",
    "neb Cu.cif --final Cu.cif --head mlearn-PBE --images 1",
    "vibrations N2.xyz --head Inorganic-PBE --fmax 0",
    "relax Cu.cif --head mlearn-PBE --out x.nothing",
    "relax Cu.cif --head mlearn-PBE --pressure 3",
    "md Cu.cif --head mlearn-PBE --steps 5 --timestep 0",
    "phase-transition Cu.cif --head mlearn-PBE --temperatures 300,400",
    "map Cu.cif --head mlearn-PBE --level atom --figure Cu.cif/x.png",
    "evaluate Cu.cif --head mlearn-PBE -o x.csv",
    "rdf none.traj",
    "describe none.pt",
    "describe default --head FOO",
    "convert default out.xyz",
    "convert default out.dp --head FOO",
    "compress none.safetensors",
    "compress default out.pt",
    "compress default out.safetensors --tolerance 1e-4",
]


def test_what_is_wrong_is_found_before_torch_is_loaded(here):
    code = (
        "import sys\nfrom dpa2calc.cli.main import main\n"
        f"for words in {WRONG}:\n"
        "    code = main(words.split())\n"
        "    print(words, code, 'torch' in sys.modules)\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    told = [line for line in run.stdout.splitlines() if line.startswith(tuple(WRONG))]
    assert told == [f"{words} 1 False" for words in WRONG], run.stderr


def test_missing_extras_are_found_before_the_model_is_loaded(here, capsys, monkeypatch):
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name == "sklearn" else real(name, *a)
    )
    monkeypatch.setitem(sys.modules, "phonopy", None)
    monkeypatch.setattr(
        "dpa2calc.cli.arguments.deferred.DeferredCalculator.load", lambda self: pytest.fail("loaded")
    )
    assert main(["map", "Cu.cif", "--head", "mlearn-PBE"]) == 1
    assert "scikit-learn, or use --no-tsne" in capsys.readouterr().err
    assert main(["phonons", "Cu.cif", "--head", "mlearn-PBE"]) == 1
    assert "phonons needs the library phonopy" in capsys.readouterr().err


def test_the_module_is_found_in_a_checkout(here):
    """`python -m dpa2calc` in the folder of the sources, where ./dpa2calc has no `training` in it."""
    from pathlib import Path

    root = Path(files.__file__).parents[2]
    if not (root / "training").is_dir():
        pytest.skip("no checkout")
    code = "import sys; sys.meta_path = [f for f in sys.meta_path if 'ditable' not in repr(f)]\n"
    code += "import dpa2calc.training, dpa2calc.applications; print(dpa2calc.training.__file__)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root)
    assert run.stdout.strip() == str(root / "training" / "__init__.py"), run.stderr


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["eos", "Cu.cif", "--json", ""], "--json"),
        (["eos", "Cu.cif", "--json=--"], "--json"),
        (["eos", "Cu.cif", "--csv="], "--csv"),
        (["evaluate", "Cu.cif", "--model", ""], "--model"),
        (["evaluate", "Cu.cif", ""], "STRUCTURES"),
    ],
)
def test_an_empty_word_is_not_taken_for_none(words, named, here, capsys):
    """Of `--json "$UNSET"`: a file that is asked for is written, or its lack is an error before the work."""
    with pytest.raises(SystemExit) as stopped:
        main([*words, "--calculator", "emt"])
    assert stopped.value.code == 2 and sorted(os.listdir()) == ["Cu.cif", "N2.xyz"]
    assert f"{named} is empty; give a value" in capsys.readouterr().err


def test_a_file_whose_name_is_taken_for_an_option(here, capsys):
    write("./-Cu.cif", bulk("Cu"))
    with pytest.raises(SystemExit):
        main(["eos", "-Cu.cif", "--calculator", "emt"])
    assert (
        "unrecognized arguments: -Cu.cif; a file of that name is written ./-Cu.cif" in capsys.readouterr().err
    )
    assert main("eos ./-Cu.cif --calculator emt --relax fixed --no-progress".split()) == 0


@pytest.mark.parametrize("words", ["eos Cu.cif --relax fixed", "relax Cu.cif", "md Cu.cif --steps 2"])
def test_numbers_are_shown_before_a_full_disk_ends_the_command(words, here, capsys, monkeypatch):
    def full(*_, **__):
        raise OutputError("x.png cannot be written: No space left on device")

    for module in ("arguments.application", "verbs.solids.relax", "verbs.trajectories.md"):
        monkeypatch.setattr(f"dpa2calc.cli.{module}.save_figure", full)
    write("Cu.cif", bulk("Cu", cubic=True))
    assert main([*words.split(), "--calculator", "emt", "--no-progress"]) == 1
    text = capsys.readouterr()
    assert "No space left" in text.err and ("eV" in text.out or "NVT molecular dynamics" in text.out)
