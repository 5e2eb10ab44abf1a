"""Loss and learning rate of an `input.json`, beside what deepmd-kit does."""

from typing import Any

import pytest
from deepmd_inputs import changed_input, water_input

from dpa2calc.deepmd.input_json import parse_input
from dpa2calc.training import TrainConfig


@pytest.mark.parametrize(
    ("given", "learned", "alone"),
    [
        (
            {"start_pref_v": 0.02},
            ["energy", "force"],
            ["loss.start_pref_v: without effect beside limit_pref_v"],
        ),
        ({"start_pref_v": 0.02, "limit_pref_v": 1}, ["energy", "force", "virial"], []),
        ({"limit_pref_f": 0.0}, ["energy"], ["loss.start_pref_f: without effect beside limit_pref_f = 0"]),
        (
            {"start_pref_e": 0, "limit_pref_e": 1},
            ["force"],
            ["loss.limit_pref_e: without effect beside start_"],
        ),
    ],
)
def test_a_prefactor_of_nought_leaves_the_kind_out(
    given: dict[str, Any], learned: list[str], alone: list[str]
) -> None:
    """`has_e = start_pref_e != 0 and limit_pref_e != 0` of deepmd-kit's loss."""
    read = parse_input(water_input({}) | {"loss": given})
    assert list(TrainConfig(**read.training).learned) == learned
    assert [note for note in read.ignored if note.startswith(tuple(alone) or ("loss",))] == list(read.ignored)
    assert len(read.ignored) == len(alone)


def test_a_gradient_is_cut_where_deepmd_cuts_it() -> None:
    """Its Huber loss is half of the squared error where errors are small; ours is all of it."""
    huber = {"loss": {"use_huber": True, "huber_delta": 0.02}}
    given = parse_input(water_input({"gradient_max_norm": 5.0}) | huber).training
    assert given["huber_delta"] == 0.02 and given["gradient_clip"] == 10.0


@pytest.mark.parametrize(("warmup", "smooth"), [(0, False), (100, False), (0, True)])
def test_a_decay_rate_is_that_of_deepmd(warmup: int, smooth: bool) -> None:
    """start_lr decay_rate^floor(step / decay_steps), without the floor where it is smooth."""
    changes = {
        "decay_rate": 0.9,
        "decay_steps": 300,
        "warmup_steps": warmup,
        "smooth": smooth,
        "stop_lr": 1e-8,
    }
    given = parse_input(
        changed_input(training__numb_steps=2000) | {"learning_rate": {"start_lr": 1e-3, **changes}}
    )
    config = TrainConfig(**given.training)
    for step in (0, 299, 300, 301, 1000, 1899):
        power = step / 300 if smooth else step // 300
        assert 1e-3 * config.rate_fraction(warmup + step) == pytest.approx(1e-3 * 0.9**power, rel=1e-9)


def test_the_rate_ends_where_that_of_deepmd_does() -> None:
    """`_check_lr_stop_args` of deepmd-kit 3.2: 5e-8 where a file names no other end."""
    assert (
        parse_input(water_input({}) | {"learning_rate": {"start_lr": 1e-3}}).training["learning_rate_stop"]
        == 5e-8
    )
