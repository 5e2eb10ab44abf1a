"""One self-contained HTML page that shows a map of points: no network, no library."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping, Sequence

import numpy as np


def map_page(
    title: str,
    projections: Mapping[str, np.ndarray],
    labels: Mapping[str, Sequence[str]],
    codes: Mapping[str, np.ndarray],
    details: Sequence[str],
) -> str:
    """The page's text.

    Args:
        title: heading.
        projections: name -> coordinates (n, 2); each is scaled to the unit square.
        labels, codes: for each way to colour, the label names and each point's code (n,).
        details: what to show of each point under the mouse, besides its labels (n,).
    """
    data = {
        "projections": {name: _unit_square(points) for name, points in projections.items()},
        "labels": {key: list(names) for key, names in labels.items()},
        "codes": {key: [int(code) for code in values] for key, values in codes.items()},
        "details": list(details),
    }
    # No label can end the script or begin a comment in it: "\\u003c" is "<" to JSON and nothing to HTML.
    text = json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")
    heading = html.escape(title)
    return "".join([_BEFORE_TITLE, heading, _BEFORE_HEADING, heading, _BEFORE_DATA, text, _AFTER_DATA])


def _unit_square(points: np.ndarray) -> list[list[float]]:
    low = points.min(axis=0)
    size = max(float((points.max(axis=0) - low).max()), 1e-12)
    return [[round(float(value), 5) for value in row] for row in (points - low) / size]


_BEFORE_TITLE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>"""
_BEFORE_HEADING = """</title>
<style>
body { margin: 0; font: 14px sans-serif; color: #222; display: flex; flex-direction: column; height: 100vh; }
header { padding: 8px 12px; display: flex; gap: 16px; align-items: center; border-bottom: 1px solid #ddd; }
h1 { font-size: 16px; margin: 0; }
main { flex: 1; display: flex; min-height: 0; }
#plot { flex: 1; position: relative; min-width: 0; }
canvas { position: absolute; inset: 0; cursor: crosshair; }
#legend { width: 230px; overflow-y: auto; padding: 8px; border-left: 1px solid #ddd; }
#legend div { cursor: pointer; padding: 2px 4px; white-space: nowrap; }
#legend div.off { opacity: 0.3; }
#legend i { display: inline-block; width: 10px; height: 10px; border-radius: 5px; margin-right: 6px; }
#tip { position: absolute; pointer-events: none; background: #fffffff0; border: 1px solid #999;
  padding: 4px 6px; display: none; font-size: 12px; white-space: pre; }
</style></head><body>
<header><h1>"""
_BEFORE_DATA = """</h1>
<label>projection <select id="projection"></select></label>
<label>colour <select id="colour"></select></label>
<span>wheel: zoom, drag: move, double click: reset, legend: show or hide</span></header>
<main><div id="plot"><canvas></canvas><div id="tip"></div></div><div id="legend"></div></main>
<script>
const data = """
_AFTER_DATA = """;
const canvas = document.querySelector("canvas"), context = canvas.getContext("2d");
const plot = document.getElementById("plot"), legend = document.getElementById("legend");
const tip = document.getElementById("tip");
const projection = document.getElementById("projection"), colour = document.getElementById("colour");
for (const name of Object.keys(data.projections)) projection.add(new Option(name));
for (const name of Object.keys(data.labels)) colour.add(new Option(name));
let scale = 1, shiftX = 0, shiftY = 0, hidden = new Set(), dragging = null;
// golden-angle hues keep neighbours in the legend apart, however many there are
const shade = code => `hsl(${(code * 137.5) % 360} ${60 + 20 * (code % 2)}% ${38 + 14 * (code % 3)}%)`;
function place(point) {
  const size = 0.92 * Math.min(plot.clientWidth, plot.clientHeight);
  return [(point[0] - 0.5) * size * scale + plot.clientWidth / 2 + shiftX,
          (0.5 - point[1]) * size * scale + plot.clientHeight / 2 + shiftY];
}
function draw() {
  const ratio = window.devicePixelRatio || 1;
  canvas.width = plot.clientWidth * ratio; canvas.height = plot.clientHeight * ratio;
  canvas.style.width = plot.clientWidth + "px"; canvas.style.height = plot.clientHeight + "px";
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, plot.clientWidth, plot.clientHeight);
  const codes = data.codes[colour.value], points = data.projections[projection.value];
  const radius = Math.max(1.6, Math.min(4, 120 / Math.sqrt(points.length))) * Math.sqrt(Math.min(scale, 4));
  context.globalAlpha = 0.75;
  points.forEach((point, k) => {
    if (hidden.has(codes[k])) return;
    const [x, y] = place(point);
    context.fillStyle = shade(codes[k]);
    context.beginPath(); context.arc(x, y, radius, 0, 7); context.fill();
  });
}
function rebuild() {
  hidden = new Set(); legend.textContent = "";
  const counts = new Map();
  for (const code of data.codes[colour.value]) counts.set(code, (counts.get(code) || 0) + 1);
  [...counts.entries()].sort((a, b) => b[1] - a[1]).forEach(([code, count]) => {
    const row = document.createElement("div"), dot = document.createElement("i");
    dot.style.background = shade(code);
    row.append(dot, `${data.labels[colour.value][code]} (${count})`);
    row.onclick = () => {
      if (hidden.delete(code)) row.className = ""; else { hidden.add(code); row.className = "off"; }
      draw();
    };
    legend.append(row);
  });
  draw();
}
canvas.addEventListener("wheel", event => {
  event.preventDefault();
  const factor = Math.exp(-event.deltaY / 400), next = Math.max(0.5, Math.min(200, scale * factor));
  const x = event.offsetX - plot.clientWidth / 2, y = event.offsetY - plot.clientHeight / 2;
  shiftX = x - (x - shiftX) * next / scale; shiftY = y - (y - shiftY) * next / scale; scale = next;
  draw();
}, { passive: false });
canvas.addEventListener("mousedown", event => {
  dragging = [event.clientX - shiftX, event.clientY - shiftY];
});
window.addEventListener("mouseup", () => { dragging = null; });
canvas.addEventListener("dblclick", () => { scale = 1; shiftX = shiftY = 0; draw(); });
canvas.addEventListener("mouseleave", () => { tip.style.display = "none"; });
canvas.addEventListener("mousemove", event => {
  if (dragging) {
    shiftX = event.clientX - dragging[0]; shiftY = event.clientY - dragging[1]; draw(); return;
  }
  const codes = data.codes[colour.value];
  let best = -1, nearest = 100;
  data.projections[projection.value].forEach((point, k) => {
    if (hidden.has(codes[k])) return;
    const [x, y] = place(point), d = (x - event.offsetX) ** 2 + (y - event.offsetY) ** 2;
    if (d < nearest) { nearest = d; best = k; }
  });
  tip.style.display = best < 0 ? "none" : "block";
  if (best < 0) return;
  tip.textContent = Object.keys(data.labels).map(key => `${key}: ${data.labels[key][data.codes[key][best]]}`)
    .concat([data.details[best]]).join("\\n");
  tip.style.left = Math.min(event.offsetX + 12, plot.clientWidth - tip.offsetWidth - 4) + "px";
  tip.style.top = Math.min(event.offsetY + 12, plot.clientHeight - tip.offsetHeight - 4) + "px";
});
window.addEventListener("resize", draw);
projection.onchange = draw; colour.onchange = rebuild;
rebuild();
</script></body></html>
"""
