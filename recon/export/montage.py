"""The demo's picture: one row per scan with its image, the truth, their difference and the error in figures."""

from __future__ import annotations

import textwrap
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from recon.errors import ReconError, ScanError
from recon.export.parts import Real, window
from recon.export.png import picture, to_grey
from recon.scan import Quantity

if TYPE_CHECKING:
    from PIL.Image import Image as Picture
    from PIL.ImageDraw import ImageDraw

PANEL = 256  # pixels; the longer side of a plane is drawn this long
MARGIN = 14
LABEL = 330  # width of the column of words
LABEL_LETTERS = 38  # of 16 pixels, so that a line of words ends before the first panel
HEADING = 92  # height of title and column names
MAGNIFY = 10.0  # a difference is drawn this much brighter than the image, else a good one would look black
PLAIN = str.maketrans({"×": "x", "−": "-", "–": "-", "²": "^2", "³": "^3", "µ": "u", "≤": "<="})
BACKGROUND, WORDS, QUIET, GOOD, BAD = "#14161a", "#f0f2f5", "#9aa3ad", "#5fd38d", "#ff6b6b"


@dataclass(frozen=True, slots=True, eq=False)
class Comparison:
    """One row: `image` and `truth` magnitudes [y, x] in the same units, NRMSE inside the object and what is allowed."""

    name: str
    detail: str
    image: Real
    truth: Real
    nrmse: float
    allowed: float
    spacing_mm: tuple[float, float] = (1.0, 1.0)  # (y, x)

    def __post_init__(self) -> None:
        if self.image.shape != self.truth.shape or self.image.ndim != 2:
            raise ScanError(
                f"image of {self.name} has shape {self.image.shape} and its truth {self.truth.shape}, "
                "expected the same [y, x]: compare one plane on one grid"
            )

    @property
    def passed(self) -> bool:
        """Whether the error is within what is allowed."""
        return self.nrmse <= self.allowed


def write_montage(rows: Sequence[Comparison], path: Path, *, title: str) -> None:
    """Write the picture of `rows` under `title` as a PNG at `path`."""
    draw_montage(rows, title=title).save(path, format="png")


def draw_montage(rows: Sequence[Comparison], *, title: str) -> Picture:
    """The picture of `rows`: image and truth share the truth's window, the difference is magnified as headed."""
    size = (LABEL + 3 * (PANEL + MARGIN) + MARGIN, HEADING + len(rows) * (PANEL + MARGIN))
    canvas, pen = _blank(size)
    _write(pen, (MARGIN, MARGIN), title, size=24)
    for column, heading in enumerate(("image", "truth", f"|image - truth| x {MAGNIFY:g}")):
        _write(pen, (_left(column), HEADING - 28), heading, size=17, colour=QUIET)
    for number, row in enumerate(rows):
        top = HEADING + number * (PANEL + MARGIN)
        _write_words(pen, row, top)
        for column, panel in enumerate(_panels(row)):
            canvas.paste(panel, (_left(column) + (PANEL - panel.width) // 2, top + (PANEL - panel.height) // 2))
    return canvas


def _panels(row: Comparison) -> list[Picture]:
    _, white = window(row.truth, Quantity.MAGNITUDE)
    error = np.abs(row.image - row.truth)
    planes = ((row.image, white), (row.truth, white), (error, white / MAGNIFY))
    return [_fit(picture(to_grey(values, 0.0, high)), row) for values, high in planes]


def _fit(panel: Picture, row: Comparison) -> Picture:
    """Scale `panel` to true proportions, its longer side PANEL pixels; nearest neighbour keeps pixels visible."""
    from PIL import Image as pillow

    sides_mm = [count * step for count, step in zip(row.image.shape, row.spacing_mm, strict=True)]
    height, width = (max(1, round(PANEL * side / max(sides_mm))) for side in sides_mm)
    return panel.resize((width, height), pillow.Resampling.NEAREST)


def _write_words(pen: ImageDraw, row: Comparison, top: int) -> None:
    _write(pen, (MARGIN, top + 8), row.name, size=22)
    _write(pen, (MARGIN, top + 40), _wrapped(row.detail), size=16, colour=QUIET)
    _write(pen, (MARGIN, top + 168), f"NRMSE {100 * row.nrmse:.2f} %", size=24, colour=GOOD if row.passed else BAD)
    verdict = "within" if row.passed else "beyond"
    _write(pen, (MARGIN, top + 202), f"{verdict} the allowed {100 * row.allowed:.2f} %", size=16, colour=QUIET)


def _wrapped(words: str) -> str:
    return "\n".join(part for line in words.splitlines() for part in textwrap.wrap(line, LABEL_LETTERS))


def _left(column: int) -> int:
    return LABEL + column * (PANEL + MARGIN)


def _blank(size: tuple[int, int]) -> tuple[Picture, ImageDraw]:
    try:
        from PIL import Image as pillow
        from PIL import ImageDraw as drawing
    except ImportError as error:
        raise ReconError("the montage needs the package pillow, which is not installed: install it") from error
    canvas = pillow.new("RGB", size, BACKGROUND)
    return canvas, drawing.Draw(canvas)


def _write(pen: ImageDraw, at: tuple[int, int], words: str, *, size: int, colour: str = WORDS) -> None:
    from PIL import ImageFont

    pen.multiline_text(at, _to_ascii(words), fill=colour, font=ImageFont.load_default(size), spacing=6)


def _to_ascii(words: str) -> str:
    """Pillow's built-in font draws little but ASCII."""
    return unicodedata.normalize("NFKD", words.translate(PLAIN)).encode("ascii", "ignore").decode("ascii")
