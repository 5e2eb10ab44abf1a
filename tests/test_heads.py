"""Head names: the rules in their order, and errors that list what there is."""

import pickle
from dataclasses import dataclass

import pytest

from dpa2calc.errors import ElementError, HeadError
from dpa2calc.heads import check_known, list_heads, resolve_head


@dataclass(frozen=True)
class Head:
    name: str
    aliases: tuple[str, ...] = ()
    description: str = ""
    functional: str = ""
    elements: tuple[str, ...] = ()


WATER = Head("H2O_H2O_PD", ("water",), "water and ice", "SCAN", ("H", "O"))
WATER_HYBRID = Head("H2O_H2O-PBE0TS", (), "liquid water", "PBE0-TS", ("H", "O"))
ALLOY = Head("Domains_Alloy", ("ALLOY",), "bulk alloys", "PBE", tuple("A B C D E F G H I J".split() * 3))
OMAT = Head("Omat24", ("Default", "Materials"))
HEADS = (WATER, WATER_HYBRID, ALLOY, OMAT)


@pytest.mark.parametrize(
    ("name", "head"),
    [
        ("H2O_H2O_PD", WATER),
        ("water", WATER),
        ("Materials", OMAT),
        ("h2o-h2o pd", WATER),
        ("WATER", WATER),
        ("H2O-PD", WATER),
        ("h2o_pd", WATER),
        ("PD", WATER),
        ("H2O-PBE0TS", WATER_HYBRID),
        ("alloy", ALLOY),
        (" omat24 ", OMAT),
    ],
)
def test_name_alias_and_suffix_find_the_head(name, head):
    assert resolve_head(name, HEADS) is head


def test_exact_name_wins_over_alias_and_alias_over_suffix():
    heads = (Head("a_water", ("ice",)), Head("ice"), Head("b", ("water",)))
    assert resolve_head("ice", heads).name == "ice"
    assert resolve_head("water", heads).name == "b"


def test_suffix_starts_at_a_separator():
    with pytest.raises(HeadError, match="no head '0TS'"):
        resolve_head("0TS", HEADS)
    with pytest.raises(HeadError, match="no head ''"):
        resolve_head("", HEADS)


def test_single_head_needs_no_name_but_a_wrong_name_is_never_ignored():
    assert resolve_head(None, (WATER,)) is WATER
    with pytest.raises(HeadError, match="no head 'ice'"):
        resolve_head("ice", (WATER,))


def test_ambiguous_suffix_lists_only_the_heads_that_fit():
    heads = (Head("Metals_Ti"), Head("Oxides_Ti"), OMAT)
    with pytest.raises(HeadError, match=r"'ti' fits 2 heads of DPA-9; write one") as caught:
        resolve_head("ti", heads, model="DPA-9")
    assert "Oxides_Ti" in str(caught.value) and "Omat24" not in str(caught.value)
    twins = (Head("a-b"), Head("A_B"))
    with pytest.raises(HeadError, match="fits 2 heads"):
        resolve_head("a b", twins)
    assert resolve_head("A_B", twins) is twins[1]


def test_no_name_with_several_heads_lists_description_functional_and_elements():
    with pytest.raises(HeadError, match=r"has 4 heads.*choose one with head=") as caught:
        resolve_head(None, HEADS)
    lines = str(caught.value).splitlines()
    assert lines[1].split() == "H2O_H2O_PD (water) SCAN [H O] water and ice".split()
    assert "[30 elements: A B C D E F ... H I J]  bulk alloys" in lines[3]
    assert lines[4].endswith("functional not stated  [elements not stated]")
    assert list_heads(HEADS) == "\n".join(lines[1:])


@pytest.mark.parametrize(
    ("typed", "meant"),
    [("H2O-PB0TS", "H2O_H2O-PBE0TS"), ("Domain_Aloy", "Domains_Alloy"), ("omat", "Omat24")],
)
def test_unknown_name_suggests_the_nearest(typed, meant):
    with pytest.raises(HeadError, match=f"no head '{typed}'; did you mean '{meant}'"):
        resolve_head(typed, HEADS)


def test_hopeless_name_is_not_guessed_and_other_types_are_refused():
    with pytest.raises(HeadError) as caught:
        resolve_head("qwertz", HEADS)
    assert "did you mean" not in str(caught.value) and "Domains_Alloy" in str(caught.value)
    with pytest.raises(HeadError, match="head = 0 is not a name"):
        resolve_head(0, HEADS)  # type: ignore[arg-type]


METALS = (Head("mlearn", elements=("Cu", "Si")), Head("oxides", elements=("O", "Ti")), Head("unsaid"))


@pytest.mark.parametrize("name", [None, "metal"])
def test_only_heads_that_know_the_elements_are_listed(name):
    with pytest.raises(HeadError) as caught:
        resolve_head(name, METALS, elements=["Cu"])
    _, second, *listed = str(caught.value).splitlines()
    assert second == "heads that know Cu: mlearn, unsaid"
    assert [line.split()[0] for line in listed] == ["mlearn", "unsaid"]
    assert resolve_head("oxides", METALS, elements=["Cu"]).name == "oxides"  # a choice is a choice


def test_where_no_head_knows_the_elements_all_are_listed():
    with pytest.raises(HeadError, match="heads that know Cu O: none of them") as caught:
        resolve_head(None, METALS[:2], elements=["Cu", "O"])
    assert "mlearn" in str(caught.value) and "oxides" in str(caught.value)


def test_an_error_about_heads_survives_a_process():
    with pytest.raises(HeadError) as caught:
        resolve_head(None, METALS, elements=["Cu"])
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_an_unknown_element_names_the_heads_that_know_it():
    check_known(["Cu", "Si"], METALS[0])
    check_known(["Xe"], METALS[2])
    text = r"'oxides' never saw Cu .*it saw O, Ti\. Heads that know Cu: mlearn, unsaid"
    with pytest.raises(ElementError, match=text):
        check_known(["Cu"], METALS[1], METALS)
    with pytest.raises(ElementError, match="Choose another head, or pass allow_unseen_elements=True"):
        check_known(["Xe"], METALS[1], METALS[:2])
