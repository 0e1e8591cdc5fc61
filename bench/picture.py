"""Distributions as curves in a PNG: the share of values up to each, for two or more samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

WIDTH, HEIGHT, MARGIN = 900, 520, 70
COLOURS = ("#1f77b4", "#d62728", "#2ca02c", "#9467bd")
INK, GRID = "#222222", "#dddddd"
Point = tuple[float, float]


def curves(samples: Mapping[str, Sequence[float]], path: Path, *, title: str) -> None:
    """Draw the cumulative distribution of each of `samples` (s) into a PNG at `path`."""
    from PIL import Image, ImageDraw

    most = max(max(values) for values in samples.values())
    canvas = Image.new("RGB", (WIDTH, HEIGHT), "white")
    pen = ImageDraw.Draw(canvas)
    for tenth in range(0, 11, 2):
        (x, _), (_, y) = _place(most * tenth / 10, 0.0, most), _place(0.0, tenth / 10, most)
        pen.line([(MARGIN, y), (WIDTH - MARGIN, y)], fill=GRID)
        pen.line([(x, MARGIN), (x, HEIGHT - MARGIN)], fill=GRID)
        pen.text((MARGIN - 34, y - 6), f"{10 * tenth} %", fill=INK)
        pen.text((x - 12, HEIGHT - MARGIN + 10), f"{most * tenth / 10:.2f} s", fill=INK)
    for number, (name, values) in enumerate(samples.items()):
        pen.line(_steps(values, most), fill=COLOURS[number], width=2)
        pen.text((WIDTH - MARGIN - 120, HEIGHT - MARGIN - 60 + 16 * number), name, fill=COLOURS[number])
    pen.text((MARGIN, MARGIN - 30), f"{title}: share of images up to so long after the last readout", fill=INK)
    path.parent.mkdir(parents=True, exist_ok=True)
    canvas.save(path, format="png")


def _steps(values: Sequence[float], most: float) -> list[Point]:
    return [_place(value, (rank + 1) / len(values), most) for rank, value in enumerate(sorted(values))]


def _place(value: float, share: float, most: float) -> Point:
    across, up = WIDTH - 2 * MARGIN, HEIGHT - 2 * MARGIN
    return MARGIN + across * value / most, HEIGHT - MARGIN - up * share
