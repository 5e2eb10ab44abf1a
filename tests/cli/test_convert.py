"""`dpa2calc convert`, from and to every format it writes."""

from pathlib import Path

import pytest
import torch

from dpa2calc.cli.main import main
from dpa2calc.store.checkpoint import save_checkpoint
from dpa2calc.store.load import extra_facts, load_model

GOLDEN = Path(__file__).parents[1] / "data" / "golden" / "models"
MULTI = GOLDEN / "mt_dpa2_tiny_sharefit_case" / "model.pt.xz"


def test_there_and_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    chain = [GOLDEN / "dpa2_tog_strip" / "model.dp.xz"]
    for name in ("a.safetensors", "b.pt", "c.dp", "d.safetensors"):
        chain.append(tmp_path / name)
        assert main(["convert", str(chain[-2]), str(chain[-1])]) == 0
    first, last = load_model(chain[0]).state_dict(), load_model(chain[-1]).state_dict()
    assert all(torch.equal(first[name], last[name]) for name in first)
    assert load_model(chain[0]).config == load_model(chain[-1]).config
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4
    assert "d.safetensors: dpa2, " in lines[-1] and "nearest 120 neighbours within 6 Å" in lines[-1]


def test_one_head(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    everything, one = tmp_path / "all.safetensors", tmp_path / "one.safetensors"
    assert main(["convert", str(MULTI), str(everything)]) == 0
    assert main(["convert", str(everything), str(one), "--head", "mol-3", "--dtype", "float32"]) == 0
    assert [head.name for head in load_model(one).config.heads] == ["mol_3"]
    assert load_model(one).dtype == torch.float32
    original = load_model(MULTI, "mol_3").state_dict()
    for name, value in load_model(everything, "mol_3").state_dict().items():
        assert torch.equal(value, original[name]), name
    assert main(["convert", str(everything), str(tmp_path / "x.dp")]) == 1
    assert "holds one head; name one of water_1, metal_2, mol_3" in capsys.readouterr().err


def test_what_a_maker_said_of_a_model_stays_with_it(tmp_path: Path) -> None:
    source, said = tmp_path / "a.safetensors", {"teacher": "large", "licence": "CC-BY-4.0"}
    student = load_model("student-water")
    save_checkpoint(student, source, extra_info=said)
    assert main(["convert", str(source), str(tmp_path / "b.safetensors")]) == 0
    assert main(["compress", str(source), str(tmp_path / "c.safetensors")]) == 0
    assert extra_facts(tmp_path / "b.safetensors") == {**said, "converted_from": "a.safetensors"}
    assert extra_facts(str(tmp_path / "c.safetensors")) == said
    assert extra_facts(MULTI) == {}


def test_what_cannot_be_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["convert", str(MULTI), str(tmp_path / "m.pth")]) == 1
    assert "dp convert-backend m.dp m.pth" in capsys.readouterr().err
    assert main(["convert", str(tmp_path / "none.pt"), str(tmp_path / "m.dp")]) == 1
    assert "none.pt" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
