"""The datasets of the paper (arXiv:2312.15492): Table 1, and the DFT settings of its section S1.

They are published on AIS Square (https://www.aissquare.com); this package does not carry them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

SOURCE = "https://www.aissquare.com"


@dataclass(frozen=True)
class PaperSet:
    """One row of Table 1.

    Attributes:
        elements: symbols, or only their number where the table gives no more.
        n_train, n_test: frames. weight: sampling weight in the paper's multi-task training.
        role: used for pre-training, or left for downstream tasks.
        code, settings: DFT code and settings as far as section S1 states them.
        reference: of the data.
    """

    name: str
    role: Literal["pretrain", "downstream"]
    elements: tuple[str, ...] | int
    n_train: int
    n_test: int
    weight: float
    code: str = ""
    settings: str = ""
    reference: str = ""


def _elements(text: str) -> tuple[str, ...]:
    return tuple(text.split())


_PEROVSKITES = "PBEsol, ONCV pseudopotentials"
_METALS = "PBE, norm-conserving, 100 Ry, k spacing 0.05 / Bohr"
_SEMI = "plane waves 100 Ry, k spacing 0.08 / Bohr"
_ALMGCU = "PBE, PAW 650 eV, k spacing 0.1 / Å, Methfessel-Paxton 0.22 eV"
_CLUSTER = "PBE-D3"
_PRB = "PRB 108, L180104 (2023)"
_JCP = "JCP 154, 094703 (2021)"
_SCAN = "SCAN, 1500 eV"

_PRETRAIN = (
    PaperSet("Alloy", "pretrain", 53, 71_482, 1_240, 2.0, "ABACUS", _METALS, "this paper"),
    PaperSet(
        "Cathode-P",
        "pretrain",
        _elements("Li Na O Mn Fe Co Cr Ni"),
        58_690,
        6_451,
        1.0,
        "VASP",
        "PBE",
        "this paper",
    ),
    PaperSet(
        "Cluster-P",
        "pretrain",
        _elements("Pd Ru Al Au Ag Pt Si Cu Ni"),
        139_200,
        14_936,
        1.0,
        "CP2K",
        _CLUSTER,
        "this paper",
    ),
    PaperSet(
        "Drug",
        "pretrain",
        _elements("H C N O F Cl S P"),
        1_379_956,
        24_257,
        2.0,
        "Gaussian",
        "",
        "this paper",
    ),
    PaperSet("FerroEle-P", "pretrain", 15, 6_966, 760, 1.0, "ABACUS", _PEROVSKITES, _PRB),
    PaperSet("OC2M", "pretrain", 56, 2_000_000, 999_866, 2.0, "VASP", "", "ACS Catal. 11, 6059 (2021)"),
    PaperSet(
        "SSE-PBE-P",
        "pretrain",
        _elements("Li P S Si Ge"),
        15_019,
        755,
        1.0,
        "VASP",
        "PBE",
        _JCP,
    ),
    PaperSet("SemiCond-P", "pretrain", 14, 136_867, 14_848, 1.0, "ABACUS", _SEMI, "Liu et al., arXiv"),
    PaperSet(
        "H2O-PD", "pretrain", _elements("H O"), 46_077, 2_342, 1.0, "VASP", _SCAN, "PRL 126, 236001 (2021)"
    ),
    PaperSet("AgAu-PBE", "pretrain", _elements("Ag Au"), 16_696, 812, 0.2, "", "PBE", "Wang et al., MSMSE"),
    PaperSet(
        "AlMgCu",
        "pretrain",
        _elements("Al Mg Cu"),
        24_252,
        1_145,
        0.3,
        "VASP",
        _ALMGCU,
        "CPB 30, 050706 (2021)",
    ),
    PaperSet("Cu", "pretrain", ("Cu",), 14_596, 770, 0.1, "", "", "CPC 253, 107206 (2020)"),
    PaperSet("Sn", "pretrain", ("Sn",), 6_449, 276, 0.1, "", "", "PRMaterials 7, 053603 (2023)"),
    PaperSet("Ti", "pretrain", ("Ti",), 10_054, 474, 0.1, "", "", "npj Comput. Mater. 7 (2021)"),
    PaperSet("V", "pretrain", ("V",), 14_935, 738, 0.1, "", "", "PRMaterials 6, 113603 (2022)"),
    PaperSet("W", "pretrain", ("W",), 42_297, 2_100, 0.1, "", "", "Nucl. Fusion (2022)"),
    PaperSet(
        "C12H26", "pretrain", _elements("H C"), 33_898, 1_598, 0.1, "", "", "Energy Fuels 35, 762 (2020)"
    ),
    PaperSet("HfO2", "pretrain", _elements("O Hf"), 27_660, 917, 0.1, "", "", "PRB 103, 024108 (2021)"),
)

_DOWNSTREAM = (
    PaperSet(
        "Cathode-D",
        "downstream",
        _elements("Li Na O Mn Fe Co Cr"),
        30_002,
        3_244,
        1.0,
        "VASP",
        "PBE",
        "this paper",
    ),
    PaperSet(
        "Cluster-D",
        "downstream",
        _elements("Pd Au Ag Pt Cu Ni"),
        4_218,
        395,
        1.0,
        "CP2K",
        _CLUSTER,
        "this paper",
    ),
    PaperSet("FerroEle-D", "downstream", 15, 7_521, 597, 1.0, "ABACUS", _PEROVSKITES, _PRB),
    PaperSet(
        "SSE-PBE-D",
        "downstream",
        _elements("Li P S Sn"),
        2_563,
        131,
        0.5,
        "VASP",
        "PBE",
        _JCP,
    ),
    PaperSet(
        "SSE-PBESol",
        "downstream",
        _elements("Li P S Si Ge Sn"),
        7_502,
        384,
        0.5,
        "",
        "PBEsol",
        _JCP,
    ),
    PaperSet(
        "SemiCond-D",
        "downstream",
        _elements("P N Al Te In Se Sb B As"),
        78_614,
        8_495,
        1.0,
        "ABACUS",
        _SEMI,
        "Liu et al., arXiv",
    ),
    PaperSet(
        "ANI-1x", "downstream", _elements("H C N O"), 4_872_049, 83_956, 1.0, "", "", "JCP 148, 241733 (2018)"
    ),
    PaperSet(
        "Transition-1x",
        "downstream",
        _elements("H C N O"),
        7_632_328,
        967_454,
        1.0,
        "",
        "",
        "Sci. Data 9, 779 (2022)",
    ),
    PaperSet("H2O-DPLR", "downstream", _elements("H O"), 557, 46, 0.5, "", "", "JCP 156, 124107 (2022)"),
    PaperSet("H2O-SCAN0", "downstream", _elements("H O"), 7_002, 347, 0.5, "", "SCAN0", "Zhang et al., JPCB"),
    PaperSet(
        "H2O-PBE0TS",
        "downstream",
        _elements("H O"),
        133_000,
        7_000,
        0.5,
        "",
        "PBE0+TS",
        "PRL 120, 143001 (2018)",
    ),
    PaperSet(
        "H2O-PBE0TS-MD", "downstream", _elements("H O"), 38_000, 2_000, 0.5, "", "PBE0+TS", "JCP 141 (2014)"
    ),
    PaperSet(
        "AgAu-PBED3", "downstream", _elements("Ag Au"), 64_239, 2_256, 0.3, "", "PBE-D3", "Wang et al., MSMSE"
    ),
    PaperSet(
        "AlMgCu-D",
        "downstream",
        _elements("Al Mg Cu"),
        113_942,
        2_820,
        0.2,
        "VASP",
        _ALMGCU,
        "CPB 30, 050706 (2021)",
    ),
    PaperSet("In2Se3", "downstream", _elements("In Se"), 11_621, 568, 0.2, "", "", "PRB 104, 174107 (2021)"),
)


def paper_sets(role: Literal["pretrain", "downstream", "all"] = "all") -> dict[str, PaperSet]:
    """Rows of Table 1 by name."""
    return {s.name: s for s in (*_PRETRAIN, *_DOWNSTREAM) if role in ("all", s.role)}
