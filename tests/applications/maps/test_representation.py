"""Maps of descriptors: clusters stay separate, projections are right, labels follow the structure."""

import gzip
import html
import json
import re

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule

from dpa2calc.applications import RepresentationMap, representation_map
from dpa2calc.applications.maps.descriptor_points import environment_labels
from dpa2calc.errors import ConfigError, DataError


class Describer:
    """Descriptors by element and by the group told, with noise."""

    def __init__(self, offset: float = 0.0) -> None:
        self.offset, self.rng = offset, np.random.default_rng(0)

    def get_descriptors(self, atoms: Atoms) -> np.ndarray:
        rows = np.zeros((len(atoms), 6))
        rows[:, 0] = 10.0 * (atoms.numbers == 8)
        rows[:, 1] = self.offset
        return rows + 0.1 * self.rng.normal(size=rows.shape)


def waters(n: int) -> list[Atoms]:
    frames = []
    for k in range(n):
        atoms = molecule("H2O", cell=[8, 8, 8], pbc=True)
        atoms.rattle(0.02, seed=k)
        frames.append(atoms)
    return frames


def test_environments_of_known_structures() -> None:
    assert environment_labels(molecule("H2O")) == ["O:H2", "H:O1", "H:O1"]
    ethanol = environment_labels(molecule("CH3CH2OH"))
    assert {name for name in ethanol if name[0] != "H"} == {"C:C1 H2 O1", "C:C1 H3", "O:C1 H1"}
    assert set(environment_labels(bulk("Cu", "fcc", a=3.6))) == {"Cu:Cu12"}
    assert environment_labels(bulk("NaCl", "rocksalt", a=5.64)) == ["Na:Cl6", "Cl:Na6"]
    assert environment_labels(Atoms("He")) == ["He:-"]


def test_clusters_by_element_and_group_come_apart() -> None:
    structures = {"cold": waters(10), "hot": waters(10)}
    result = representation_map(structures, {"cold": Describer(0.0), "hot": Describer(4.0)})
    assert len(result.pca) == 60 == result.n_total and result.tsne.shape == (60, 2)
    for key in ("group", "element", "environment"):
        assert result.purity[key] == 1.0 and result.chance[key] < 0.6
    assert result.explained[0] > result.explained[1] > 0.1 and result.explained.sum() > 0.95
    assert result.labels == {"group": ("cold", "hot"), "element": ("H", "O"), "environment": ("H:O1", "O:H2")}
    oxygen = result.codes["element"] == 1
    assert (
        np.ptp(result.pca[oxygen, 0])
        < 1.0
        < abs(result.pca[oxygen, 0].mean() - result.pca[~oxygen, 0].mean())
    )


def test_pca_equals_the_covariance_eigenvectors() -> None:
    rng = np.random.default_rng(1)
    rows = rng.normal(size=(40, 5)) @ rng.normal(size=(5, 5))
    result = representation_map([Atoms("H40")], descriptors=rows, methods=("pca",))
    values, vectors = np.linalg.eigh(np.cov(rows.T))
    np.testing.assert_allclose(result.explained, values[::-1][:2] / values.sum())
    np.testing.assert_allclose(
        np.abs(result.pca), np.abs((rows - rows.mean(0)) @ vectors[:, ::-1][:, :2]), atol=1e-9
    )
    assert result.tsne is None and result.points() is result.pca


def test_thinning_is_random_even_between_groups_and_reproducible() -> None:
    structures = {"few": waters(5), "many": waters(60)}
    maps = [
        representation_map(structures, Describer(), methods=("pca",), max_points=40, seed=3) for _ in range(2)
    ]
    np.testing.assert_array_equal(maps[0].frame, maps[1].frame)
    counts = np.bincount(maps[0].codes["group"])
    assert list(counts) == [15, 20] and maps[0].n_total == 195
    assert np.ptp(maps[0].frame[15:]) > 30  # from all over the trajectory
    other = representation_map(structures, Describer(), methods=("pca",), max_points=40, seed=4)
    assert not np.array_equal(other.frame, maps[0].frame)


def test_structures_and_chosen_elements() -> None:
    frames = [molecule("H2O"), molecule("CH4"), molecule("CH3OH"), molecule("NH3")]
    whole = representation_map(frames, Describer(), level="structure", methods=("pca",))
    assert len(whole.pca) == 4 and set(whole.atom) == {-1}
    assert set(whole.labels["environment"]) == {"H2O", "CH4", "CH4O", "H3N"}
    hydrogen = representation_map(frames, Describer(), elements=["H"], methods=("pca",))
    assert len(hydrogen.pca) == 2 + 4 + 4 + 3 and hydrogen.labels["element"] == ("H",)


def test_arrays_for_each_frame_equal_one_array() -> None:
    frames = waters(6)
    rows = np.random.default_rng(0).normal(size=(18, 4))
    one = representation_map(frames, descriptors=rows, methods=("pca",))
    many = representation_map(frames, descriptors=list(rows.reshape(6, 3, 4)), methods=("pca",))
    np.testing.assert_array_equal(one.pca, many.pca)


def test_saved_drawn_and_written_as_a_page(tmp_path) -> None:
    result = representation_map({"a </script>": waters(4), "b": waters(4)}, Describer())
    again = RepresentationMap.load(result.save(tmp_path / "map.npz"))
    assert again.summary() == result.summary() and again.labels == result.labels
    ax = again.plot(colour="environment")
    assert {text.get_text() for text in ax.get_legend().get_texts()} == {"H:O1", "O:H2"}
    assert sum(len(line.get_xdata()) for line in ax.lines) == 24
    page = again.write_html(tmp_path / "map.html").read_text()
    data = json.loads(re.search(r"const data = (.*);\n", page).group(1))
    assert page.count("</script>") == 1 and "http" not in page.replace("http-equiv", "")
    assert set(data["projections"]) == {"t-SNE", "PCA"} and data["labels"]["group"][0] == "a </script>"
    assert len(data["details"]) == 24 and data["codes"]["element"] == list(result.codes["element"])


@pytest.mark.parametrize(
    "name", ["<!--<script>", "</script><b>", "@DATA@", "@TITLE@", "{0}%s$x", "a & b \u2028", "'\"\\"]
)
def test_names_are_text_on_the_page_whatever_they_are(name, tmp_path) -> None:
    result = representation_map({name: waters(4), "b": waters(4)}, Describer(), methods=("pca",))
    page = result.write_html(tmp_path / "map.html", title=name).read_text(encoding="utf-8")
    script = page[page.index("<script>") + 8 : page.rindex("</script>")]
    assert page.count("<script") == page.count("</script") == 1 and "<!--" not in script
    data = json.loads(re.search(r"const data = (.*);\n", script).group(1))
    assert data["labels"]["group"][0] == name
    assert page.count(html.escape(name)) >= 2  # title and heading
    assert "<b>" not in page


def test_errors_say_what_to_do() -> None:
    frames = waters(4)
    with pytest.raises(ConfigError, match="either a calculator with get_descriptors, or descriptors"):
        representation_map(frames)
    with pytest.raises(ConfigError, match=r"object has no get_descriptors\(atoms\)"):
        representation_map(frames, object())
    with pytest.raises(ConfigError, match="no calculator for group 'b'; there are a"):
        representation_map({"b": frames}, {"a": Describer()})
    with pytest.raises(DataError, match="descriptors have 20 rows, but the structures need 12"):
        representation_map(frames, descriptors=np.zeros((20, 3)))
    with pytest.raises(DataError, match=r"frame 3: descriptors of shape \(1, 3\) for 3 atoms"):
        representation_map(frames, descriptors=np.zeros((10, 3)))
    with pytest.raises(DataError, match="a descriptor is NaN"):
        representation_map(frames, descriptors=np.full((12, 3), np.nan))
    with pytest.raises(DataError, match="all descriptors are equal"):
        representation_map(frames, descriptors=np.zeros((12, 3)))
    with pytest.raises(DataError, match="0 points are too few"):
        representation_map(frames, Describer(), elements=["Li"])
    with pytest.raises(ConfigError, match="level = 'cell' is not allowed; allowed: atom, structure"):
        representation_map(frames, Describer(), level="cell")
    result = representation_map(frames, Describer(), methods=("pca",))
    with pytest.raises(ConfigError, match="this map has no t-SNE"):
        result.points("tsne")
    with pytest.raises(ConfigError, match="colour = 'mass' is not one of group, element, environment"):
        result.plot(colour="mass")


def test_chemiscope_file_puts_every_point_on_its_atom(tmp_path) -> None:
    structures = {"cold": waters(6), "hot": [bulk("Cu", a=3.6), bulk("Cu", a=3.7)]}
    describer = {"cold": Describer(), "hot": Describer(4.0)}
    result = representation_map(structures, describer, max_points=12, methods=("pca",))
    data = json.loads(
        gzip.decompress(result.write_chemiscope(tmp_path / "map.json.gz", structures).read_bytes())
    )
    assert set(data) == {"meta", "structures", "properties", "settings", "environments"}
    assert len(data["environments"]) == len(result.pca) == len(data["properties"]["PCA 1"]["values"])
    everything = [*structures["cold"], *structures["hot"]]
    offset = {"cold": 0, "hot": 6}
    for k, place in enumerate(data["environments"]):
        shown = data["structures"][place["structure"]]
        group = data["properties"]["group"]["values"][k]
        true = everything[offset[group] + result.frame[k]]
        assert place["center"] == result.atom[k] and shown["names"] == true.get_chemical_symbols()
        assert shown["y"] == pytest.approx(true.positions[:, 1], abs=1e-4)
        assert shown["cell"] == pytest.approx(true.cell.array.ravel(), abs=1e-4)
        assert data["properties"]["element"]["values"][k] == true.symbols[int(result.atom[k])]
    used = {place["structure"] for place in data["environments"]}
    assert used == set(range(len(data["structures"])))  # no structure without a point
    for axis in ("x", "y", "color"):
        assert data["settings"]["map"][axis]["property"] in data["properties"]


def test_chemiscope_file_of_structures_keeps_their_order(tmp_path) -> None:
    structures = {"b": waters(3), "a": [bulk("Cu", a=3.6)]}
    result = representation_map(structures, Describer(), level="structure", methods=("pca",))
    data = json.loads(result.write_chemiscope(tmp_path / "map.json", structures).read_text())
    assert "environments" not in data
    assert data["properties"]["group"] == {"target": "structure", "values": ["b", "b", "b", "a"]}
    assert [shown["size"] for shown in data["structures"]] == [3, 3, 3, 1]
    with pytest.raises(DataError, match="the map has the groups b, a"):
        result.write_chemiscope(tmp_path / "map.json", waters(3))
    with pytest.raises(DataError, match="2 points of the map have no frame"):
        result.write_chemiscope(tmp_path / "map.json", {"b": waters(1), "a": structures["a"]})
    with pytest.raises(ConfigError, match=r"end it in .json or .json.gz"):
        result.write_chemiscope(tmp_path / "map.html", structures)


def test_every_group_has_points_and_a_calculator_in_the_provenance() -> None:
    structures = {"water": waters(2), "copper": [bulk("Cu", cubic=True)]}
    with pytest.raises(
        DataError, match="group 'copper' has no point: none of its atoms is O or H; leave it out"
    ):
        representation_map(structures, Describer(), elements=("O", "H"), methods=("pca",))
    with pytest.raises(ConfigError, match=r"elements = Oo, Q is not allowed; allowed: symbols such as H"):
        representation_map(structures, Describer(), elements=("O", "Q", "Oo"), methods=("pca",))

    for wrong, text in (
        ({"seed": -1}, "seed is -1"),
        ({"perplexity": -3.0}, "perplexity must be a positive"),
    ):
        with pytest.raises(ConfigError, match=text):
            representation_map(structures, Describer(), **wrong)

    class Told(Describer):
        def describe(self) -> str:
            return f"offset {self.offset:g}"

    result = representation_map(structures, {"water": Told(1.0), "copper": Told(2.0)}, methods=("pca",))
    assert result.provenance["calculator"] == "Told"
    assert [one["model"] for one in result.provenance["calculators"].values()] == ["offset 1", "offset 2"]
    assert representation_map(structures, Told(3.0), methods=("pca",)).provenance["model"] == "offset 3"
