"""The figure in docs/speed.md: how many times faster than deepmd-kit, from results/speed.json.

python benchmarks/plot.py
"""

import json

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from common import HERE, RESULTS


def main() -> None:
    """Bars of the ratios, one group a model, one bar a system and number of threads."""
    record = json.loads((RESULTS / "speed.json").read_text())
    rows = [row for row in record["rows"] if "ratio" in row]
    models = list(dict.fromkeys(row["model"] for row in rows))
    series = list(dict.fromkeys((row["system"], row["threads"]) for row in rows))
    figure, axes = plt.subplots(figsize=(8, 3.6), layout="constrained")
    width = 0.8 / len(series)
    for number, (system, threads) in enumerate(series):
        found = {r["model"]: r["ratio"] for r in rows if (r["system"], r["threads"]) == (system, threads)}
        places = [models.index(m) + (number - (len(series) - 1) / 2) * width for m in found]
        bars = axes.bar(places, list(found.values()), width * 0.95, label=f"{system}, {threads} thread(s)")
        axes.bar_label(bars, fmt="%.1f", fontsize=7)
    axes.axhline(1.0, color="k", linewidth=0.8)
    axes.set_xticks(range(len(models)), models)
    axes.set_ylabel("times faster than deepmd-kit 3.2.0")
    axes.set_title(
        f"energy + forces + virial, float32, same weights; {record['machine']['cpu']}, "
        f"{record['machine']['cores']} cores",
        fontsize=9,
    )
    axes.legend(fontsize=7)
    target = HERE.parent / "docs" / "speed.png"
    figure.savefig(target, dpi=150)
    print(target)


if __name__ == "__main__":
    main()
