"""Every method on simulated scans with exact truth: the error, beside the one that noise alone would make.

`python -m bench.methods > docs/methods.md` makes the page from the newest stored result.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import sqrt
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench import realtime
from bench.report import Row
from kernels.contract import Kernels
from recon.pipeline import reconstruct
from recon.recipe import Recipe, Value
from recon.scan import Flag, Readouts, Scan
from recon.simulate import SimulatedScan, masks, nrmse, simulate

CALIBRATION_LINES = 24
MATRIX, COILS = 96, 8
POISSON = 4.0  # one in so many lines
MISSING = 3 / 8  # of the lines of partial Fourier
RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True, slots=True)
class Case:
    """A row of the table: `method` on the scan of `protocol`, of whose lines every `acceleration`-th is kept.

    Or those that the pattern `sampled` (a name of PATTERNS) takes.
    """

    family: str
    protocol: str
    method: str
    acceleration: int = 1
    matrix: int = 0  # 0: as large as all others
    settings: tuple[tuple[str, Value], ...] = ()  # parameters that are not the method's defaults
    sampled: str = ""

    @property
    def name(self) -> str:
        """What the row is called in results."""
        factor = f".r{self.acceleration}" if self.acceleration > 1 else ""
        chosen = "".join(f".{name}-{value}" for name, value in self.settings)
        pattern = f".{self.sampled}" if self.sampled else ""
        return f"methods.{self.protocol}{pattern}{factor}.{self.method}{chosen}"

    @property
    def called(self) -> str:
        """What the page calls the method."""
        return ", ".join([f"`{self.method}`", *(f"`{name}` {value}" for name, value in self.settings)])


def _cases() -> Iterator[Case]:
    whole = {
        "2-D spin echo": "brain-se",
        "3-D gradient echo": "head-gre3d",
        "multi-echo gradient echo": "abdomen-multiecho",
        "gradient echo, off-resonant while read": "head-shift",
        "inversion recovery": "brain-ir",
        "MOLLI, ECG-triggered": "heart-molli",
        "diffusion shells, averages": "brain-dwi",
        "phase-contrast cine": "carotid-pc",
        "DCE time series, 3-D": "breast-dce",
        "DSC time series": "brain-dsc",
    }
    yield from (Case(family, protocol, "fft") for family, protocol in whole.items())
    for factor in (2, 3):
        for method in ("grappa", "sense", "cg-sense", "l1-wavelet", "tv"):
            yield Case("2-D spin echo, undersampled", "brain-se", method, factor)
    for method in ("cg-sense", "llr"):
        yield Case("inversion recovery, undersampled", "brain-ir", method, 3)
    for how in ("off", "homodyne", "pocs"):
        chosen = (("partial_fourier", how),)
        yield Case("2-D spin echo, 5/8 of the lines", "brain-se", "fft", settings=chosen, sampled="half")
    for pattern, family in (("elliptical", "without its corners"), ("poisson", "Poisson disc, one in 4")):
        for method in ("fft", "cg-sense", "l1-wavelet"):
            yield Case(f"3-D gradient echo, {family}", "head-gre3d", method, matrix=48, sampled=pattern)
    yield Case("echo-planar, single shots", "head-epi", "fft", matrix=64)
    yield Case("echo-planar, four shots", "head-epi-shots", "fft")
    yield Case("echo-planar, three slices at once", "head-epi-sms", "slice-grappa", matrix=64)
    yield Case("retrospectively gated cine", "heart-cine", "cine")
    for method in ("grappa", "sense"):
        yield Case("real-time cine, every third line in turn", "heart-realtime", method)
    for family, protocol in (("golden-angle radial cine", "heart-radial"), ("real-time spiral", "heart-spiral")):
        yield from (Case(family, protocol, method) for method in ("gridding", "cg-sense"))
    late, off = "radial, gradients late", "spiral off resonance"
    for family, protocol, name in ((late, "head-radial", "delays"), (off, "head-spiral", "off_resonance")):
        yield Case(family, protocol, "gridding", settings=((name, "off"),))
        yield from (Case(family, protocol, method) for method in ("gridding", "cg-sense", "l1-wavelet"))
    for family, protocol, matrix in (("stack of stars", "head-stars", 64), ("koosh ball", "head-koosh", 48)):
        yield from (Case(family, protocol, method, matrix=matrix) for method in ("gridding", "cg-sense", "l1-wavelet"))
    for method in ("gridding", "cg-sense", "l1-wavelet"):
        yield Case("stack of stars, dynamic, few spokes", "breast-stars", method, matrix=48)
    repetitions = (("over", "repetition"),)
    yield Case("stack of stars, dynamic, few spokes", "breast-stars", "grasp", matrix=48, settings=repetitions)
    yield Case("stack of stars, dynamic, few spokes", "breast-stars", "llr", matrix=48)
    free = "radial, free breathing"
    yield Case(free, "abdomen-radial", "gridding")
    for source in ("waveform", "self"):
        yield Case(free, "abdomen-radial", "gridding", settings=(("respiration", source),))


CASES = tuple(_cases())

# Who else judges a method in the tests, besides the exact truth: the program, and the test that asks it.
JUDGES: Mapping[str, tuple[str, str]] = {
    "fft": ("`ismrmrd_recon_cartesian_2d`", "tests/recon/test_pipeline.py"),
    "grappa": ("BART's SENSE", "tests/recon/methods/test_unfolding.py"),
    "sense": ("BART", "tests/recon/methods/test_unfolding.py"),
    "gridding": ("BART", "tests/recon/methods/test_gridding.py"),
    "cg-sense": ("BART", "tests/recon/methods/test_cg_sense.py"),
    "l1-wavelet": ("BART", "tests/recon/methods/test_sparse.py"),
    "tv": ("BART", "tests/recon/methods/test_sparse.py"),
    "grasp": ("BART", "tests/recon/methods/test_grasp.py"),
    "llr": ("BART", "tests/recon/methods/test_llr.py"),
}


def measure(kernels: Kernels, cases: Sequence[Case] = CASES, *, matrix: int = MATRIX, coils: int = COILS) -> list[Row]:
    """A row for each case: root-mean-square of its images' errors relative to truth, beside the predicted one."""
    scans: dict[tuple[str, int], SimulatedScan] = {}
    rows = []
    for case in cases:
        size = min(matrix, case.matrix or matrix)
        if (case.protocol, size) not in scans:
            scans[case.protocol, size] = simulate(case.protocol, seed=1, matrix=size, coils=coils)
        rows.append(_row(case, scans[case.protocol, size], kernels))
    return rows


def _row(case: Case, simulated: SimulatedScan, kernels: Kernels) -> Row:
    scan = _measured(case, simulated)
    found = {image.counters: image for image in reconstruct(scan, Recipe(case.method, dict(case.settings)), kernels)}
    errors = tuple(nrmse(found[truth.counters].pixels[0], truth) for truth in simulated.truth)
    value, predicted = _rms(errors), _rms([truth.predicted_nrmse for truth in simulated.truth])
    return Row(case.name, value, "NRMSE", predicted, value / predicted, errors)


def _measured(case: Case, simulated: SimulatedScan) -> Scan:
    if case.sampled:
        grid = simulated.scan.header.encodings[0].encoded.matrix[:2]
        return masks.undersampled(simulated, PATTERNS[case.sampled](grid)).scan
    return undersampled(simulated.scan, case.acceleration) if case.acceleration > 1 else simulated.scan


def _poisson(grid: tuple[int, int]) -> masks.Mask:
    return masks.poisson(grid, POISSON, np.random.default_rng(7), centre=12)


def _half(grid: tuple[int, int]) -> masks.Mask:
    """All but the first lines along ky."""
    return np.broadcast_to(np.arange(grid[1]) >= MISSING * grid[1], grid)


PATTERNS: Mapping[str, Callable[[tuple[int, int]], masks.Mask]] = {
    "elliptical": masks.elliptical,
    "poisson": _poisson,
    "half": _half,
}


def _rms(values: Sequence[float]) -> float:
    return sqrt(sum(value * value for value in values) / len(values))


def undersampled(scan: Scan, factor: int) -> Scan:
    """Every `factor`-th line of a fully sampled 2-D Cartesian scan, and calibration lines in the centre of k-space."""
    encoding = scan.header.encodings[0]
    size = encoding.encoded.matrix[1]
    header = replace(scan.header, encodings=(replace(encoding, acceleration=(factor, 1), calibration_mode="embedded"),))
    return replace(scan, header=header, readouts=tuple(_thinned(run, size, factor) for run in scan.readouts))


def _thinned(run: Readouts, size: int, factor: int) -> Readouts:
    line = run.head["kspace_encode_step_1"].astype(np.int64)
    regular = line % factor == size // 2 % factor
    centre = np.abs(line - size // 2 + 0.25) <= CALIBRATION_LINES / 2
    noise = (run.head["flags"] & np.uint64(Flag.IS_NOISE_MEASUREMENT.mask)) != 0
    kept = np.flatnonzero(regular | centre | noise)
    head = run.head[kept].copy()
    _mark(head, (centre & ~noise)[kept], regular[kept])
    return Readouts(head, run.samples[kept])


def _mark(head: NDArray[np.void], centre: NDArray[np.bool_], regular: NDArray[np.bool_]) -> None:
    head["flags"][centre & regular] |= np.uint64(Flag.IS_PARALLEL_CALIBRATION_AND_IMAGING.mask)
    head["flags"][centre & ~regular] |= np.uint64(Flag.IS_PARALLEL_CALIBRATION.mask)


# ---- the page ----

PLANAR_HEAD = """
## Echo-planar images

Measured without noise. A *ghost* is what is wrong where the object would lie half a field of view away, relative to the object; *leakage* is what an image shows of another slice that alone gives signal, relative to what that slice's own image shows (the larger the more slices share the coils: 3 % is asked of three); *displacement* is that of the whole object by 50 Hz, against frequency × echo spacing × lines.

| | measured | beside |
|---|---|---|
"""  # noqa: E501 (one paragraph of the page per line)

Shown = Callable[[Mapping[str, float]], str]


def _ghost(row: Mapping[str, float]) -> str:
    return f"{100 * row['value']:.2f} % | {100 * row['baseline']:.1f} % without navigators"


def _leakage(row: Mapping[str, float]) -> str:
    return f"{100 * row['value']:.2f} % | {100 * row['baseline']:.0f} %"


def _displacement(row: Mapping[str, float]) -> str:
    return f"{row['value']:.3f} voxels | {row['baseline']:.3f} voxels predicted"


PLANAR: tuple[tuple[str, str, Shown], ...] = (
    ("methods.head-epi.ghost", "ghost of a single shot", _ghost),
    ("methods.head-epi-shots.ghost", "ghost of four shots", _ghost),
    ("methods.head-epi.displacement", "displacement by 50 Hz", _displacement),
    *((f"methods.head-epi-sms.mb{n}.leakage", f"leakage between {n} slices", _leakage) for n in (2, 3, 4)),
)

HEAD = """# Methods

What each method makes of simulated scans whose truth is known exactly. *Error* is the root of Σ(image − truth)² / Σ truth² over the object, over all images of the scan; *noise alone* is what the noise of the fully sampled scan must cause there, and what a perfect reconstruction of all lines shows. Undersampled scans keep every R-th line and 24 calibration lines, so their noise is at least √R larger. Methods run with their defaults but for the parameters named; the truth of a body that breathes is the one at the end of expiration.

A judge is a program of others that the tests ask about the same method.

| sequence family | method | protocol | R | error | noise alone | ratio | judge |
|---|---|---|---|---|---|---|---|
"""  # noqa: E501 (one paragraph of the page per line)


def page(stored: Path) -> str:
    """The whole page, from a stored result."""
    document = json.loads(stored.read_text(encoding="utf-8"))
    rows = {row["id"]: row for row in document["rows"]}
    lines = [_line(case, rows[case.name]) for case in CASES if case.name in rows]
    lines += _speed(rows)
    about = document["environment"]
    foot = f"\nMeasured on {about['date'][:10]} at commit `{about['commit']}`: `bench/results/{stored.name}`."
    made = (
        "Made by `python -m bench.methods > docs/methods.md` from the newest result of `recon-cluster bench methods`."
    )
    return HEAD + "".join(lines) + _planar(rows) + f"{foot} {made}\n"


def _planar(rows: Mapping[str, Mapping[str, float]]) -> str:
    """The table of what else is asked of echo-planar images; nothing where it was not measured."""
    lines = [f"| {what} | {show(rows[name])} |\n" for name, what, show in PLANAR if name in rows]
    return PLANAR_HEAD + "".join(lines) if lines else ""


def _speed(rows: Mapping[str, Mapping[str, float]]) -> list[str]:
    """What is measured beside errors."""
    if realtime.NAME not in rows:
        return []
    found, size = rows[realtime.NAME], f"{realtime.MATRIX} × {realtime.MATRIX}"
    words = f"Real-time radial cine, {size}, {realtime.MEASURED_COILS} coils compressed to {realtime.COILS}"
    means = f"gridding of the last {realtime.WINDOW} spokes whenever {realtime.STRIDE} more are there"
    took = f"{found['value']:.0f} ms a frame on one core (median); {found['baseline']:.0f} ms are wanted"
    return [f"\n{words}, {means}: {took}.\n"]


def _line(case: Case, row: Mapping[str, float]) -> str:
    judge, test = JUDGES.get(case.method, ("", ""))
    shown = f"{judge} ([test](../{test}))" if judge else "–"
    numbers = f"{100 * row['value']:.2f} % | {100 * row['baseline']:.2f} % | {row['ratio']:.2f}"
    return f"| {case.family} | {case.called} | `{case.protocol}` | {case.acceleration} | {numbers} | {shown} |\n"


def newest(folder: Path = RESULTS) -> Path:
    """The stored result whose name, which begins with its date, comes last; raises FileNotFoundError."""
    found = sorted(path for path in folder.glob("*-methods.json") if re.match(r"\d{4}-\d\d-\d\d-", path.name))
    if not found:
        raise FileNotFoundError(f"no result of `recon-cluster bench methods` lies in {folder}: run it first")
    return found[-1]


if __name__ == "__main__":
    print(page(newest()), end="")
