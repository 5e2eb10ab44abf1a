"""A distillation file and the verb: the same names as in Python, and errors before anything runs."""

import pytest
from ase.build import bulk
from ase.io import write

from dpa2calc import DPA2Calculator
from dpa2calc.cli.main import main
from dpa2calc.errors import ConfigError
from dpa2calc.training.config.train import TrainConfig
from dpa2calc.training.distill.file import DistillFile, build_student, build_teacher
from dpa2calc.training.exploration.file import load_set, load_start

FILE = """
output = "{folder}/run"
threshold = 0.3
max_rounds = 1
[teacher]
calculator = "ase.calculators.emt.EMT"
arguments = {{ asap_cutoff = true }}
[start]
frames = ["start.extxyz"]
max_frames = 2
[student]
preset = "dpa1-l0"
[student.descriptor]
cutoff = 4.5
neuron = [4, 8]
axis_neuron = 4
[student.fitting]
neuron = [8, 8]
[train]
steps = 5
batch_atoms = 8
log_every = 5
[[md]]
temperature = 500
steps = 20
sample_interval = 10
trajectories = 1
[[md]]
ensemble = "npt"
temperature = [300, 400]
pressure = [0, 1]
steps = 10
sample_interval = 10
trajectories = 1
structures = ["gold.extxyz"]
"""


@pytest.fixture
def folder(tmp_path):
    frames = [bulk("Cu", cubic=True, a=3.5 + 0.05 * i) for i in range(6)]
    write(tmp_path / "start.extxyz", frames)
    write(tmp_path / "gold.extxyz", bulk("Au", cubic=True))
    (tmp_path / "run.toml").write_text(FILE.format(folder=tmp_path))
    return tmp_path


def test_a_teacher_is_found_beside_the_file(folder):
    """As start frames and the student are, wherever the command is given."""
    (folder / "teacher.safetensors").write_bytes(b"")
    text = (folder / "run.toml").read_text().replace("arguments = { asap_cutoff = true }", "")
    text = text.replace('calculator = "ase.calculators.emt.EMT"', 'model = "teacher.safetensors"')
    (folder / "run.toml").write_text(text)
    assert DistillFile(folder / "run.toml").teacher.model == str(folder / "teacher.safetensors")
    (folder / "run.toml").write_text(text.replace("teacher.safetensors", "default"))
    assert DistillFile(folder / "run.toml").teacher.model == "default"


def test_a_file_says_it_all(folder):
    file = DistillFile(folder / "run.toml", changes={"threshold": "0.1"}, output="elsewhere")
    assert file.config.threshold == 0.1 and file.config.max_rounds == 1 and str(file.output) == "elsewhere"
    assert file.train == TrainConfig(steps=5, batch_atoms=8, log_every=5)
    assert [c.ensemble for c in file.md] == ["nvt", "npt"] and file.md[0].temperature == (500.0,)
    assert list(file.md[1].points()) == [(300, 0), (300, 1), (400, 0), (400, 1)]
    assert file.md[1].structures == (str(folder / "gold.extxyz"),)
    start = load_start(file.start, file.root)  # two of six, evenly spread
    assert [round(a.cell[0, 0], 2) for a in start] == [3.55, 3.7]
    assert load_set(file.test, file.root, "test") is None
    assert build_teacher(file.teacher).parameters["asap_cutoff"] is True
    student = build_student(file, ("Cu", "Au"))
    assert student.descriptor.neuron == (4, 8) and student.descriptor.attn_layer == 0
    assert student.type_map == ("Cu", "Au") and student.heads[0].fitting.neuron == (8, 8)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("threshold =", "threshhold =", r"unknown option threshhold = 0.3; did you mean threshold\?"),
        ("max_rounds = 1", "max_rounds = 0", "max_rounds = 0 is not allowed; allowed: at least 1"),
        ("temperature = 500", "temprature = 500", r"md.temprature = 500; did you mean md.temperature\?"),
        (
            "temperature = 500",
            'temperature = "hot"',
            r"md.temperature = 'hot' is not allowed; allowed: a finite number",
        ),
        (
            "arguments =",
            'head = "A"\narguments =',
            "teacher.head = .* no effect beside .*calculator",
        ),
        (
            'preset = "dpa1-l0"',
            'checkpoint = "a"',
            "student.descriptor = .* beside student.checkpoint",
        ),
        (
            'preset = "dpa1-l0"',
            'start = "a"',
            "student.start = .* allowed: student.checkpoint",
        ),
        ("max_frames = 2", "max_frames = -2", "start.max_frames = -2 is not allowed; allowed: at least 0"),
        ("max_frames = 2", "max_frame = 2", r"start.max_frame = 2; did you mean start.max_frames\?"),
        ("frames = [", "files = [", r"unknown option start.files = .*; did you mean start.frames\?"),
        ("steps = 5", "step = 5", r"unknown option train.step = 5; did you mean train.steps\?"),
        ("calculator =", "calculater =", r"teacher.calculater = .*; did you mean teacher.calculator\?"),
        ('preset = "dpa1-l0"', 'preset = "tiny"', "no preset 'tiny'; there are paper"),
        ("cutoff = 4.5", "cutoff = -1", "cutoff = -1"),
        ("axis_neuron = 4", "axis_neurons = 4", r"descriptor.axis_neurons = 4; did you mean .*axis_neuron\?"),
        ("emt.EMT", "emt.TNT", r"teacher.calculator = 'ase.calculators.emt.TNT' cannot be imported"),
        ("emt.EMT", "singlepoint.SinglePointCalculator", "teacher.arguments do not fit ase.calculators.sing"),
        ("output =", "outputs =", r"unknown option outputs = .*; did you mean output\?"),
        ("[start]", "[start", "is not TOML"),
        ("[[md]]", "[[mdd]]", r"unknown option mdd = .*; did you mean md\?"),
    ],
)
def test_wrong_keys_name_the_nearest(folder, old, new, message):
    (folder / "bad.toml").write_text(FILE.format(folder=folder).replace(old, new))
    with pytest.raises(ConfigError, match=message):
        file = DistillFile(folder / "bad.toml")
        build_student(file, ("Cu",))
        build_teacher(file.teacher)


def test_missing_sections_are_named(folder):
    with pytest.raises(ConfigError, match="there is no file"):
        DistillFile(folder / "none.toml")
    text = FILE.format(folder=folder)
    for name, cut, message in (
        ("output", text.replace("output", "#"), "output is missing; name a folder"),
        ("md", text[: text.index("[[md]]")], r"there is no \[\[md\]\] section"),
        ("start", text.replace("[start]", "[teacher2]"), "unknown option teacher2"),
    ):
        (folder / f"{name}.toml").write_text(cut)
        with pytest.raises(ConfigError, match=message):
            DistillFile(folder / f"{name}.toml")


def test_the_verb_distils_and_goes_on(folder, capsys):
    command = ["distill", str(folder / "run.toml"), "--no-progress", "--name", "alloy"]
    assert main(command) == 0
    out = capsys.readouterr().out
    assert "stopped: " in out and "student.safetensors" in out
    atoms = bulk("Au", cubic=True)
    atoms.calc = DPA2Calculator(folder / "run/student.safetensors")
    assert atoms.calc.head == "alloy" and atoms.calc.elements == ("Cu", "Au")
    assert atoms.get_forces().shape == (4, 3)
    # two of nvt copper, one of each of the four (temperature, pressure) of npt gold
    assert "round" in out and len(list((folder / "run/explore/round-01").glob("*.extxyz"))) == 5
    assert main(command) == 0 and capsys.readouterr().out == out  # nothing was done again


def test_errors_of_the_verb_are_one_line(folder, capsys):
    assert main(["distill", str(folder / "none.toml")]) == 1
    assert "dpa2calc distill: there is no file" in capsys.readouterr().err
    assert main(["distill", str(folder / "run.toml"), "--threshold", "x", "--no-progress"]) == 1
    assert (
        capsys.readouterr().err.strip().endswith("threshold = 'x' is not allowed; allowed: a finite number")
    )
