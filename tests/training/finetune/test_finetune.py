"""Fine-tuning: the right head, the bias, what is frozen, replay, LoRA."""

import copy
import dataclasses
import re

import numpy as np
import pytest
import torch
from ase.units import Bohr, Hartree

from dpa2calc.errors import ConfigError, DataError, HeadError
from dpa2calc.store.checkpoint import load_checkpoint
from dpa2calc.training.config.train import FinetuneConfig, TrainConfig
from dpa2calc.training.data.sets import TrainingSet
from dpa2calc.training.evaluate import evaluate
from dpa2calc.training.finetune.finetune import finetune
from dpa2calc.training.finetune.ranking import FINALISTS, FIRST_FRAMES, rank_heads
from dpa2calc.training.fit.lora import add_lora, merged
from dpa2calc.training.fit.predict import predict_potential
from dpa2calc.training.fit.run import pretrain
from dpa2calc.training.fit.setup import new_potential

SHORT = FinetuneConfig(steps=6, batch_atoms=8, warmup_steps=2, validate_every=3, log_every=2)


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory, request):
    """Two heads: A learned the crystal's forces, B forces of the opposite sign."""
    return tmp_path_factory.mktemp("pretrained")


@pytest.fixture
def two_heads(pretrained, tiny_model, lj_data):
    path = pretrained / "last.safetensors"
    if not path.exists():
        right = lj_data(30)
        wrong = dataclasses.replace(
            right,
            frames=tuple(
                dataclasses.replace(f, energy=-f.energy, forces=-f.forces, virial=-f.virial) for f in right
            ),
            name="B",
        )
        config = TrainConfig(steps=60, batch_atoms=16, learning_rate=2e-2, learning_rate_stop=1e-4)
        pretrain(tiny_model(("B", "A")), {"A": right, "B": wrong}, config, output=pretrained, progress=False)
    return load_checkpoint(path)


def test_best_head_is_found_whatever_the_energy_zero(two_heads, lj_data, tmp_path):
    data = lj_data(8, name="new", seed=7, shift=-25.0)
    matches = rank_heads(two_heads, data)
    assert [m.head for m in matches] == ["A", "B"]
    right, wrong = (m.errors for m in matches)
    assert right.energy_rmse < 20 and wrong.force_rmse > 3 * right.force_rmse
    result = finetune(two_heads, data, SHORT, validation=data, output=tmp_path, progress=False)
    assert result.start_head == "A" and [m.head for m in result.matches] == ["A", "B"]
    shown = f"began from head A\nzero-shot errors of the heads, best first:\n  {matches[0]}"
    assert shown in result.summary()
    # Before the first step: the pre-trained forces, and the energies of the new zero.
    first = result.history.validation[0]["sets"]["new"]
    assert first["force_rmse"] == pytest.approx(right.force_rmse, rel=1e-3)
    assert first["energy_rmse"] < 20
    assert [h.name for h in result.potential.config.heads] == ["new"]
    assert result.potential.config.heads[0].info["finetuned_from"]["head"] == "A"


def test_energies_that_are_fitted_exactly_do_not_choose_a_head(two_heads, lj_data):
    """With a frame for each composition what is left of the energies is rounding, 1e-9 meV or 1e-7."""
    one, two = lj_data(2, seed=7, shift=-5e4)
    two = dataclasses.replace(two, numbers=np.where(np.arange(4) < 2, 10, two.numbers))
    exact = dataclasses.replace(lj_data(1), frames=(one, two))
    for match in rank_heads(two_heads, exact):
        assert match.errors.energy_rmse is None and match.score == pytest.approx(match.errors.force_rmse)
    assert rank_heads(two_heads, dataclasses.replace(exact, frames=(one,)))[0].head == "A"
    free = dataclasses.replace(exact, frames=(one, two, dataclasses.replace(two, energy=two.energy + 1.0)))
    assert all(match.errors.energy_rmse > 1.0 for match in rank_heads(two_heads, free))


@pytest.mark.parametrize(
    ("factor", "doubt"),
    [
        (1.3, None),
        (-1.0, "are they gradients of the energy in place of forces"),
        (Bohr / Hartree, "times those of head A; are they Hartree/Bohr"),
        (20.0, "are they kcal/mol/Å"),
        (300.0, "is a unit or sign wrong"),
    ],
)
def test_forces_in_another_unit_are_named(tiny_model, lj_data, tmp_path, caplog, factor, doubt):
    model, data = new_potential(tiny_model(("A",)), seed=3), lj_data(6, name="new")
    made = predict_potential(model, data)
    rng = np.random.default_rng(0)
    frames = [
        dataclasses.replace(f, forces=factor * p.forces * rng.uniform(0.8, 1.2, p.forces.shape))
        for f, p in zip(data, made)
    ]
    wrong = dataclasses.replace(data, frames=tuple(frames))
    (match,) = rank_heads(model, wrong)
    assert match.force_ratio == pytest.approx(factor, rel=0.1)
    said = match.doubt()
    assert said is None if doubt is None else re.search(doubt, said)
    finetune(model, wrong, SHORT.replace(steps=1), output=tmp_path, progress=False)
    assert (f"new: {said}" in caplog.text) == (doubt is not None)
    noise = [dataclasses.replace(f, forces=rng.normal(size=f.forces.shape)) for f in data]
    of_others = [dataclasses.replace(f, forces=p.forces) for f, p in zip(data, (*made[1:], made[0]))]
    for frames in (noise, of_others):
        (match,) = rank_heads(model, dataclasses.replace(data, frames=tuple(frames)))
        assert match.force_ratio is None and abs(match.force_correlation) < 0.3
        assert "are they forces of these atoms, in their order" in match.doubt()
    bare = dataclasses.replace(data, frames=tuple(dataclasses.replace(f, forces=None) for f in data))
    assert rank_heads(model, bare)[0].doubt() is None


def test_other_start_heads(two_heads, lj_data, tmp_path):
    data = lj_data(6, name="new", seed=7)
    named = finetune(
        two_heads, data, SHORT.replace(start_head="B"), validation=data, output=tmp_path / "b", progress=False
    )
    fresh = finetune(
        two_heads,
        data,
        SHORT.replace(start_head="fresh"),
        validation=data,
        output=tmp_path / "f",
        progress=False,
    )
    assert (named.start_head, fresh.start_head, named.matches) == ("B", "fresh", ())
    rms = 1e3 * np.sqrt(np.mean(np.concatenate([f.forces for f in data]) ** 2))
    errors = [r.history.validation[0]["sets"]["new"]["force_rmse"] for r in (named, fresh)]
    assert errors[0] > 1.3 * rms  # forces of the opposite sign
    assert errors[1] != pytest.approx(errors[0], rel=1e-3)
    with pytest.raises(HeadError, match="no head 'C'"):
        finetune(two_heads, data, SHORT.replace(start_head="C"), output=tmp_path / "c", progress=False)


def _changed(source, result):
    """Names of descriptor tensors that training has changed."""
    old, new = source.state_dict(), result.potential.state_dict()
    return {n for n in old if n.startswith("descriptor.") and not torch.equal(old[n], new[n])}


def test_what_is_frozen_stays(two_heads, lj_data, tmp_path):
    data = lj_data(6, name="new")

    def run(name, **changes):
        return finetune(two_heads, data, SHORT.replace(**changes), output=tmp_path / name, progress=False)

    assert _changed(two_heads, run("all")) >= {
        "descriptor.g1_shape.matrix",
        "descriptor.type_embedding.layer.matrix",
    }
    assert _changed(two_heads, run("descriptor", freeze_descriptor=True)) == set()
    some = _changed(two_heads, run("layers", freeze_layers=1))
    assert some and all(n.startswith("descriptor.repformer.layers.1.") for n in some)
    with pytest.raises(ConfigError, match="freeze_layers = 3 is not allowed; the descriptor has 2"):
        run("many", freeze_layers=3)
    with pytest.raises(ConfigError, match="at most one of them"):
        SHORT.replace(freeze_descriptor=True, lora_rank=2)


def test_only_the_fitting_nets_go_on(two_heads, lj_data, tmp_path):
    sets = {head.name: lj_data(4, name=head.name) for head in two_heads.config.heads}
    config = TrainConfig(steps=4, batches_per_step=2, freeze_descriptor=True, final_bias_frames=0)
    result = pretrain(two_heads, sets, config, output=tmp_path / "on", progress=False)
    assert _changed(two_heads, result) == set()
    old, new = two_heads.state_dict(), result.potential.state_dict()
    assert all(
        any(not torch.equal(old[n], new[n]) for n in old if n.startswith(f"heads.{k}.nets.")) for k in (0, 1)
    )
    with pytest.raises(ConfigError, match="a fresh descriptor has learned nothing; give a trained model"):
        pretrain(two_heads.config, sets, config, output=tmp_path / "fresh", progress=False)


def test_lora_starts_at_the_model_and_merges_exactly(two_heads, lj_data, tmp_path):
    data = lj_data(5, name="new")
    before = evaluate(two_heads, data, head="A").errors
    potential = new_potential(two_heads.config, seed=0)
    potential.load_state_dict(two_heads.state_dict())
    assert len(add_lora(potential, 1)) > 6
    assert evaluate(potential, data, head="A").errors == before
    with torch.no_grad():
        for name, parameter in potential.named_parameters():
            if name.endswith(".up"):
                parameter += 0.1
    moved, plain = evaluate(potential, data, head="A").errors, merged(potential)
    assert moved.force_rmse != pytest.approx(before.force_rmse, rel=1e-3)
    assert plain.state_dict().keys() == two_heads.state_dict().keys()
    assert evaluate(plain, data, head="A").errors.force_rmse == pytest.approx(moved.force_rmse, rel=1e-5)
    # Through the trainer: files are plain, the run resumes.
    config = SHORT.replace(lora_rank=1, start_head="A", learning_rate=1e-2)
    part = finetune(
        two_heads, data, config.replace(time_limit=1e-9), output=tmp_path, validation=data, progress=False
    )
    assert not part.finished
    result = finetune(two_heads, data, config, output=tmp_path, validation=data, progress=False)
    assert (
        load_checkpoint(tmp_path / "last.safetensors").state_dict().keys()
        == result.potential.state_dict().keys()
    )
    changed = _changed(two_heads, result)
    assert changed and all(n.endswith(".matrix") for n in changed)
    with pytest.raises(ConfigError, match="no linear map of the descriptor is wider than 200"):
        add_lora(new_potential(two_heads.config, seed=0), 100)


def test_replay_keeps_the_old_head(two_heads, lj_data, tmp_path):
    data, old = lj_data(6, name="new", shift=5.0), lj_data(10)
    replay = {"A": TrainingSet(old, old.subset([0, 1]), weight=3.0)}
    kept = []  # after so few steps one seed says little: most are better than before, one is 1.6 times worse
    for seed in range(5):
        config, folder = SHORT.replace(seed=seed), tmp_path / str(seed)
        result = finetune(two_heads, data, config, output=folder, replay=replay, progress=False)
        assert [h.name for h in result.potential.config.heads] == ["new", "A"]
        assert set(result.history.validation[0]["sets"]) == {"A"}
        kept.append(evaluate(result.potential, old, head="A").errors.force_rmse)
    assert np.median(kept) < 1.1 * evaluate(two_heads, old, head="A").errors.force_rmse
    with pytest.raises(ConfigError, match="has the new head's name"):
        finetune(two_heads, data, SHORT, output=tmp_path, replay={"new": TrainingSet(old, head="A")})


def test_new_elements_say_what_to_do(two_heads, lj_data, tmp_path):
    neon = lj_data(3, symbol="Ne")
    with pytest.raises(DataError, match=r"contains Ne, which no head .*allow_new_elements"):
        finetune(two_heads, neon, SHORT, output=tmp_path)
    result = finetune(
        two_heads, neon, SHORT.replace(allow_new_elements=True), output=tmp_path, progress=False
    )
    assert result.potential.config.heads[0].elements == ("Ne",)
    with pytest.raises(DataError, match="contains Xe, which the model has no type for"):
        finetune(two_heads, lj_data(2, symbol="Xe"), SHORT, output=tmp_path / "xe")


def test_callers_potential_is_not_changed(two_heads, lj_data, tmp_path):
    before = {n: v.clone() for n, v in two_heads.state_dict().items()}
    finetune(two_heads, lj_data(4, name="new", shift=2.0), SHORT, output=tmp_path, progress=False)
    pretrain(two_heads, {"A": lj_data(4)}, TrainConfig(steps=2), output=tmp_path / "p", progress=False)
    assert all(torch.equal(v, before[n]) for n, v in two_heads.state_dict().items())
    assert all(p.requires_grad for p in two_heads.parameters())


def test_a_run_from_another_model_or_other_data_is_refused(two_heads, tiny_model, lj_data, tmp_path):
    data = lj_data(6, name="new", shift=1.0)
    options = {"output": tmp_path, "progress": False}
    stopped = finetune(two_heads, data, SHORT.replace(time_limit=1e-9), **options)
    assert not stopped.finished
    other = copy.deepcopy(two_heads)
    with torch.no_grad():
        next(other.parameters()).mul_(1.001)
    with pytest.raises(ConfigError, match=r"different are starting model: weights\. Give the run's own data"):
        finetune(other, data, SHORT, **options)
    with pytest.raises(ConfigError, match=r"set 'new': training labels"):
        finetune(two_heads, lj_data(6, name="new", shift=2.0), SHORT, **options)
    with pytest.raises(ConfigError, match=r"options: zero_shot_frames \(100 -> 3\)"):
        finetune(two_heads, data, SHORT.replace(zero_shot_frames=3), **options)
    with pytest.raises(ConfigError, match=r"options: lora_rank \(0 -> 1\)"):
        finetune(two_heads, data, SHORT.replace(lora_rank=1), **options)
    renamed = dataclasses.replace(two_heads.config, heads=two_heads.config.heads[:1])
    single = new_potential(renamed, seed=1)
    with pytest.raises(ConfigError, match=r"holds a run from head 'A', which this model does not have"):
        finetune(single, data, SHORT, **options)
    assert finetune(two_heads, data, SHORT, **options).finished


def test_a_choice_of_head_without_a_state_is_made_anew(two_heads, lj_data, tmp_path):
    data, plan = lj_data(6, name="new"), tmp_path / "zero_shot.json"
    options = {"output": tmp_path, "progress": False}
    plan.write_text('{"start_head": "B", "matches": []}')  # of other data, by a run that was killed early
    assert finetune(two_heads, data, SHORT, **options).start_head == "A"
    for text in ("[]", "{", '{"start_head": 5, "matches": []}', '{"start_head": "A", "matches": [1]}', "5"):
        plan.write_text(text)
        with pytest.raises(DataError, match=r"zero_shot.json is damaged"):
            finetune(two_heads, data, SHORT, **options)


def test_many_heads_are_compared_on_a_few_frames_first(tiny_model, lj_data):
    names = tuple(f"head {k}" for k in range(FINALISTS + 3))
    model, data = new_potential(tiny_model(names), seed=1), lj_data(FIRST_FRAMES + 5, seed=7)
    matches = rank_heads(model, data)
    assert {match.head for match in matches} == set(names)
    frames = [match.errors.n_frames for match in matches]
    assert frames == [len(data)] * FINALISTS + [FIRST_FRAMES] * 3
    whole = {name: evaluate(model, data, head=name, fit_bias=True).errors for name in names}
    for match in matches[:FINALISTS]:
        assert match.errors.force_rmse == pytest.approx(whole[match.head].force_rmse, rel=1e-9)
    scores = [match.score for match in matches[:FINALISTS]]
    assert scores == sorted(scores)


def test_heads_that_lack_an_element_are_compared_only_where_all_do(tiny_model, lj_data):
    config, data = tiny_model(("near", "far")), lj_data(3, seed=7)
    own, other = data.elements, tuple(e for e in config.type_map if e not in data.elements)
    heads = [dataclasses.replace(h, elements=e) for h, e in zip(config.heads, (other, (*own, *other)))]
    model = new_potential(config.with_heads(tuple(heads)), seed=1)
    assert [match.head for match in rank_heads(model, data)] == ["far"]
    lacking = new_potential(config.with_heads((heads[0],)), seed=1)
    (match,) = rank_heads(lacking, data)
    assert match.missing_elements == own
