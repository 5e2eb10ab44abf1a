"""The HTML page: records become tables and embedded figures, missing ones are named with their command."""

import base64
import time
from html.parser import HTMLParser

import pytest


class Reader(HTMLParser):
    """Texts of the cells, sources of the images, and a check that tags close."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.cells: list[str] = []
        self.images: list[str] = []

    def handle_starttag(self, tag, attrs):
        if tag == "img":
            self.images.append(dict(attrs)["src"])
        elif tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "td" in self.open:
            self.cells.append(data)


@pytest.fixture
def runs(script, tmp_path):
    """A runs folder with one report, one application and one distilled system."""
    record = script("paper.record")
    table = {"caption": "c", "columns": ["set", "E"], "rows": [["a<b", 12.345], ["paper", None]]}
    report = {"title": "t", "quick": False, "tables": [table], "figures": ["nve.png"], "notes": ["n"]}
    record.save_record(tmp_path / "paper/nve/nve.json", {**report, "work_seconds": 600.0}, None)
    (tmp_path / "paper/nve/nve.png").write_bytes(b"\x89PNG not really")
    claim = {"claim": "peak within 0.03", "value": "+0.01", "passed": True}
    record.save_record(
        tmp_path / "water_rdf/water_rdf.json", {"quick": True, "verdicts": [claim]}, time.time() - 30
    )
    numbers = {"energy": 0.7, "force": 50.0}
    student = {"share": 10.0, "frames": 30, "pretrained_on_it": True}
    student |= {k: numbers for k in ("teacher", "student", "full data")}
    record.save_record(tmp_path / "students/water/table.json", student, None)
    return tmp_path


def test_page_is_whole_and_holds_everything(script, runs, tmp_path):
    text = script("reproduce_paper").whole_page(runs, tmp_path)
    reader = Reader()
    reader.feed(text)
    assert reader.open == []
    assert reader.images == ["data:image/png;base64," + base64.b64encode(b"\x89PNG not really").decode()]
    assert {"a<b", "12.3", "peak within 0.03", "yes", "10 min", "water, ours *", "37.7"} <= set(reader.cells)
    missing = len(script("reproduce_paper").SECTIONS) - 3
    assert "quick run" in reader.cells and reader.cells.count("missing") == missing
    assert "examples/paper/ablation.py" in text  # how to make what is missing
    assert (
        "http" not in text.replace("https://", "http").split("<style>")[0]
    )  # nothing is loaded from elsewhere


def test_commands_of_a_full_and_a_quick_run(script, tmp_path):
    module = script("reproduce_paper")
    by_script = {s.script: s for s in module.SECTIONS}
    full = by_script["paper/head_choice.py"].command(tmp_path, tmp_path / "d", quick=False)
    assert full[2:] == [
        *("--data", str(tmp_path / "d"), "--output", str(tmp_path / "paper/head_choice")),
        *("--model", str(tmp_path / "paper/multitask/multi/last.safetensors")),
    ]
    quick = by_script["distill_students.py"].command(tmp_path, tmp_path / "d", quick=True)
    assert quick[2:] == [str(tmp_path / "d"), "--output", str(tmp_path / "students/water"), "--quick"]


def test_every_script_of_the_page_exists(script):
    module = script("reproduce_paper")
    later = {"water_rdf.py", "lgps_diffusion.py", "perovskite_transition.py"}
    assert not [
        s.script for s in module.SECTIONS if s.script not in later and not (module.HERE / s.script).exists()
    ]


def test_a_missing_figure_is_said(script, tmp_path):
    assert "is missing" in script("paper.page").image(tmp_path / "x.png")
