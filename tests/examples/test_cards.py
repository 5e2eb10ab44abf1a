"""Pages that scripts print are what the scripts print, and the README's figures of models are theirs."""

import re
from pathlib import Path

import pytest

from dpa2calc import available_models, load_model
from dpa2calc.store.registry import resolve_model
from dpa2calc.training import registered_sets

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
SHIPPED = [name for name, entry in available_models().items() if entry.shipped]


@pytest.mark.parametrize(("name", "arguments"), [("model_card", ["default"]), ("student_cards", [])])
def test_cards_are_as_their_scripts_print_them(script, name, arguments, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", [f"{name}.py", *arguments])
    script(name).main()
    page = {"model_card": "default_model.md", "student_cards": "students.md"}[name]
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    # what follows there comes from the runs of all students, which are not in the repository
    assert text.partition("## Beside students")[0].strip() == capsys.readouterr().out.strip()


def shown(error):
    return f"{error:.1f}" if error < 10 else f"{error:.0f}"


def test_errors_in_the_readme_are_those_of_the_models():
    heads = {head.name: head for head in load_model("default").config.heads}
    rows = re.findall(r"^\| ([^|]+) \| [^|]+ \| ([\d.]+)(?: \([^)]*\))? \| ([\d.]+) \|$", README, flags=re.M)
    for name, energy, force in rows:
        if name.startswith("`"):
            errors = load_model(name.strip("`")).config.heads[0].info["test_errors"]
        else:
            head, _, element = name.partition(", ")
            errors = heads[head].info["test_errors"][f"{element}-mlearn" if element else head]
        assert (shown(errors["energy_rmse"]), f"{errors['force_rmse']:.0f}") == (energy, force), name
    assert len(rows) >= 17 and {f"`{name}`" for name in SHIPPED[1:]} <= {name for name, _, _ in rows}


def test_sizes_in_the_readme_are_those_of_the_models():
    model = load_model("default")
    n_descriptor = sum(p.numel() for p in model.descriptor.parameters())
    assert (
        f"a descriptor of {n_descriptor / 1e6:.2f} M parameters and {len(model.config.heads)} heads" in README
    )
    assert f"trained on {len(registered_sets())} sets together" in README
    sizes = {name: resolve_model(name, offline=True).stat().st_size / 1e6 for name in SHIPPED}
    assert f"from {min(sizes.values()):.1f} to {max(sizes.values()):.0f}\nmegabytes" in README
    (line,) = re.findall(r"^Students have (.*)$", README, flags=re.M)
    for name in SHIPPED[1:]:
        n = sum(p.numel() for p in load_model(name).parameters())
        assert f"{n / 1e6:.2f} M" in line and f"({sizes[name]:.1f} MB)" in line, name
