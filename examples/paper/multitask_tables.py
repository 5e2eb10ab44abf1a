"""The tables that `multitask.py` prints: S3 and 2, ours and the paper's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from common import pair, ratio, weighted_mean
from paper_numbers import S3_AVERAGE, TABLE_2, TABLE_2_AVERAGE, TABLE_S3
from report import Cell, Table


def table_s3(on_own: Mapping[str, Any], steps: Mapping[str, int], weights: Mapping[str, float]) -> Table:
    """Our sets: batches, single- and multi-task errors and their ratio."""
    rows: list[tuple[Cell, ...]] = []
    lines = {}
    for name, found in on_own.items():
        single, multi = pair(found.get("single")), pair(found["multi"])
        lines[name] = (single[0], multi[0], single[1], multi[1])
        rows.append(
            (
                name,
                steps[name],
                *lines[name][:2],
                ratio(multi[0], single[0]),
                *lines[name][2:],
                ratio(multi[1], single[1]),
            )
        )
    for label, chosen in (
        ("WARMSE, all sets", list(on_own)),
        ("WARMSE, sets with both", [n for n in on_own if "single" in on_own[n]]),
    ):
        w = [weights[n] for n in chosen]
        e_st, e_mt, f_st, f_mt = (weighted_mean([lines[n][i] for n in chosen], w) for i in range(4))
        if label == "WARMSE, all sets":
            e_st = f_st = None  # an average over other sets than multi-task's says nothing
        rows.append((label, "", e_st, e_mt, ratio(e_mt, e_st), f_st, f_mt, ratio(f_mt, f_st)))
    columns = ("set", "batches", "E single", "E multi", "ratio", "F single", "F multi", "ratio")
    return Table(
        "Table S3, ours: RMSE of energy (meV/atom) and force (meV/Å) on test frames", columns, tuple(rows)
    )


def paper_s3() -> Table:
    """The paper's Table S3 with the same ratios."""
    rows: list[tuple[Cell, ...]] = []
    for name, (steps, e_st, e_mt, f_st, f_mt) in {**TABLE_S3, "WARMSE": (0, *S3_AVERAGE)}.items():
        label = f"{steps}K" if steps else ""
        rows.append((name, label, e_st, e_mt, e_mt / e_st, f_st, f_mt, f_mt / f_st))
    columns = ("set", "batches", "E single", "E multi", "ratio", "F single", "F multi", "ratio")
    return Table("Table S3, paper (other sets, 5 M parameters, 10^6 steps of 8)", columns, tuple(rows))


ZERO_SHOT = ("data dev.", "outside", "single", "multi", "best head")


def table_2(unseen: Mapping[str, Any], weights: Mapping[str, float]) -> Table:
    """Our left-out sets: zero-shot errors."""
    kinds = ("deviation", "chgnet", "single", "multi", "best")
    rows: list[tuple[Cell, ...]] = []
    lines = {n: [pair(found.get(kind) or None) for kind in kinds] for n, found in unseen.items()}
    for name, found in unseen.items():
        values = [p[0] for p in lines[name]] + [p[1] for p in lines[name]]
        rows.append((name, found["nearest"], found["best head"], *values))
    w = [weights[n] for n in unseen]
    means = [weighted_mean([lines[n][k][q] for n in unseen], w) for q in (0, 1) for k in range(len(kinds))]
    rows.append(("WARMSE", "", "", *means))
    columns = (
        "set",
        "pre-trained on",
        "best head",
        *(f"E {k}" for k in ZERO_SHOT),
        *(f"F {k}" for k in ZERO_SHOT),
    )
    return Table("Table 2, ours: zero-shot RMSE on sets left out of pre-training", columns, tuple(rows))


def paper_2() -> Table:
    """The paper's Table 2 without the column of DPA-2 trained on MPtrj."""
    rows: list[tuple[Cell, ...]] = []
    for (name, nearest), v in {**TABLE_2, ("WARMSE", ""): TABLE_2_AVERAGE}.items():
        rows.append((name, nearest, v[0], v[1], v[3], v[4], v[5], v[6], v[8], v[9]))
    kinds = ("data dev.", "MACE", "single", "multi")
    columns = ("set", "pre-trained on", *(f"E {k}" for k in kinds), *(f"F {k}" for k in kinds))
    return Table("Table 2, paper (outside: MACE-MP-0)", columns, tuple(rows))
