"""`input.json` with several heads: the branches of the model, their data, losses and chances."""

import json
from pathlib import Path

import pytest

from dpa2calc.deepmd.input_json import parse_input, read_input
from dpa2calc.errors import ConfigError
from dpa2calc.model.config.presets import preset
from dpa2calc.model.potential import Potential

INPUTS = Path(__file__).parents[1] / "data" / "inputs"


def test_multi_task() -> None:
    given = read_input(INPUTS / "dpa2_multi_task.json")
    assert [head.name for head in given.config.heads] == ["liquid", "molecules"]
    assert given.config.descriptor == preset("medium", ("O", "H", "C")).descriptor
    assert given.config.heads[1].fitting.neuron == (120, 120)
    assert given.data["liquid"].weight == 3.0 and given.data["molecules"].weight == 1.0
    assert given.data["molecules"].validation == ("m/c",)
    assert given.training["dtype"] == "float32" and given.training["steps"] == 1_000_000
    assert len(Potential(given.config).heads) == 2


def test_a_descriptor_written_out_in_each_branch_keeps_its_precision() -> None:
    content = json.loads((INPUTS / "dpa2_multi_task.json").read_text())
    for branch in content["model"]["model_dict"].values():
        branch["descriptor"] = content["model"]["shared_dict"]["descr"]
    assert parse_input(content).training["dtype"] == "float32"


def test_shared_fitting_net_becomes_one_a_head() -> None:
    content = json.loads((INPUTS / "dpa2_multi_task.json").read_text())
    content["model"]["shared_dict"]["fit"] = {"neuron": [60, 60], "dim_case_embd": 2}
    for branch in content["model"]["model_dict"].values():
        branch["fitting_net"] = "fit"
    given = parse_input(content)
    assert [head.fitting.neuron for head in given.config.heads] == [(60, 60), (60, 60)]
    assert given.config.heads[0].fitting.dim_case_embd == 0
    notes = [key for key in given.ignored if "fit" in key]
    assert notes == [
        "shared_dict.fit: each head gets a fitting net of its own with these options",
        "fitting_net.dim_case_embd",
    ]


def test_heads_are_drawn_by_their_number_of_systems() -> None:
    """deepmd-kit 3.2 (`resolve_model_prob`) draws by the number of systems where there is no model_prob."""
    content = json.loads((INPUTS / "dpa2_multi_task.json").read_text())
    del content["training"]["model_prob"]
    given = parse_input(content)
    assert {name: data.weight for name, data in given.data.items()} == {"liquid": 1.0, "molecules": 2.0}
    content["training"]["data_dict"]["liquid"]["training_data"]["systems"] = "l"
    with pytest.raises(ConfigError, match=r"systems = 'l' .*write training\.model_prob"):
        parse_input(content)


@pytest.mark.parametrize("section", ["loss_dict", "model_prob", "data_dict"])
def test_sections_that_are_not_of_the_branches(section: str) -> None:
    content = json.loads((INPUTS / "dpa2_multi_task.json").read_text())
    content["loss_dict"] = {"liquid": {"type": "ener"}, "molecules": {"type": "ener"}}
    place = content if section == "loss_dict" else content["training"]
    left = place[section].pop("liquid")
    message = rf"{section} has .*, but the branches of model\.model_dict are liquid, molecules"
    with pytest.raises(ConfigError, match=message):
        parse_input(content)
    place[section]["liquids"] = left
    with pytest.raises(ConfigError, match=message):
        parse_input(content)


def test_sections_of_a_file_with_one_branch() -> None:
    content = json.loads((INPUTS / "dpa2_multi_task.json").read_text())
    content["loss"] = content.pop("loss_dict", {}).get("liquid", {"type": "ener"})
    with pytest.raises(ConfigError, match=r"input\.loss belongs to a file with one branch; write loss_dict"):
        parse_input(content)


def test_options_of_the_loss_of_any_head_are_refused() -> None:
    content = json.loads((INPUTS / "dpa2_multi_task.json").read_text())
    content["loss_dict"] = {"liquid": {"type": "ener"}, "molecules": {"type": "ener", "start_pref_ae": 1.0}}
    with pytest.raises(ConfigError, match=r"loss\.start_pref_ae = 1\.0 is not supported"):
        parse_input(content)


def test_heads_with_other_losses() -> None:
    content = json.loads((INPUTS / "dpa2_multi_task.json").read_text())
    content["loss_dict"] = {
        "liquid": {"type": "ener", "start_pref_v": 0.0},
        "molecules": {"type": "ener", "start_pref_v": 0.02, "limit_pref_v": 1.0},
    }
    with pytest.raises(
        ConfigError, match=r"loss_dict\.molecules is another loss than that of the first head"
    ):
        parse_input(content)


def test_heads_with_other_descriptors() -> None:
    content = json.loads((INPUTS / "dpa2_multi_task.json").read_text())
    content["model"]["model_dict"]["liquid"]["descriptor"] = content["model"]["shared_dict"]["descr"]
    with pytest.raises(ConfigError, match="from 2 places; here all heads share one"):
        parse_input(content)
    content["model"]["model_dict"]["liquid"]["descriptor"] = "nothing"
    with pytest.raises(ConfigError, match="names 'nothing', but shared_dict has elements, descr"):
        parse_input(content)
