"""The measurements behind docs/decisions/001-fft-library.md: `python -m bench.fft_choice [--json FILE]`.

The main job is one 2-D frame of 32 coils, 256 lines of 512 samples, as it lies in the spool, to a 256² image.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from itertools import cycle
from pathlib import Path

import numpy as np
import pyfftw
import scipy.fft

import kernels
from bench import report
from kernels.contract import Complex, Kernels, Real

COILS, LINES, SAMPLES, KEPT = 32, 256, 512, 256
HEAD_BYTES = 342  # message id and acquisition header before the samples of each readout
CROP = (1, LINES, KEPT)
Work = Callable[[], object]


def frames(count: int) -> list[Complex]:
    """k-space [coil, 1, line, sample] as views of streams; several, so that not one of them stays in the cache."""
    rng = np.random.default_rng(0)
    stride = HEAD_BYTES + 8 * COILS * SAMPLES
    views: list[Complex] = []
    for _ in range(count):
        stream = np.zeros(HEAD_BYTES + LINES * stride, np.uint8)
        strides = (8 * SAMPLES, LINES * stride, stride, 8)
        view = np.ndarray((COILS, 1, LINES, SAMPLES), np.complex64, stream.data, HEAD_BYTES, strides)
        view.real, view.imag = (rng.standard_normal(view.shape, np.float32) for _ in range(2))
        views.append(view)
    return views


def naive(kspace: Complex) -> Real:
    """The plain pipeline: shift, transform, shift, crop, root-sum-of-squares, each on all coils."""
    shifted = scipy.fft.ifftshift(kspace, axes=(2, 3))
    images = scipy.fft.fftshift(scipy.fft.ifft2(shifted, norm="ortho"), axes=(2, 3))
    central = images[..., SAMPLES // 2 - KEPT // 2 : SAMPLES // 2 + KEPT // 2]
    image: Real = np.sqrt((central.real**2 + central.imag**2).sum(axis=0))
    return image


def careful(kspace: Complex) -> Real:
    """The same by SciPy with care: one copy, no shifts, cropped before the second transform."""
    lines = scipy.fft.ifft(np.ascontiguousarray(kspace), overwrite_x=True)
    kept = np.concatenate([lines[..., : KEPT // 2], lines[..., -KEPT // 2 :]], axis=-1)
    images = scipy.fft.ifft(kept, axis=2, overwrite_x=True)
    image: Real = np.fft.fftshift(np.sqrt((images.real**2 + images.imag**2).sum(axis=0)))
    return image


def main_job(repeats: int) -> list[report.Row]:
    """The whole frame, every way in turn."""
    views: Iterator[Complex] = cycle(frames(4))
    fftw, plain = kernels.on("cpu"), kernels.on("cpu:scipy")
    whitening = np.eye(COILS, dtype=np.complex64)

    def apart(k: Kernels, kspace: Complex) -> Real:
        return k.ifft_rss(k.whiten(whitening, kspace.transpose(1, 2, 0, 3)).transpose(2, 0, 1, 3), crop=CROP)

    ways: dict[str, Work] = {
        "frame.naive": lambda: naive(next(views)),
        "frame.careful": lambda: careful(next(views)),
        "frame.cpu": lambda: fftw.ifft_rss(next(views), crop=CROP),
        "frame.cpu-scipy": lambda: plain.ifft_rss(next(views), crop=CROP),
        "frame.whitened-apart": lambda: apart(fftw, next(views)),
        "frame.whitened": lambda: fftw.ifft_rss(next(views), crop=CROP, whitening=whitening),
    }
    return timed(ways, repeats, baseline="frame.naive")


def libraries(repeats: int) -> list[report.Row]:
    """One coil's two stages on data in the cache: 256 lines of 512 along x, then 256 columns of 256 along y."""
    lines, columns = (pyfftw.zeros_aligned(shape, "complex64") for shape in ((LINES, SAMPLES), (LINES, KEPT)))
    ways: dict[str, Work] = {
        "x.numpy": lambda: np.fft.ifft(lines),
        "x.scipy": lambda: scipy.fft.ifft(lines),
        "x.fftw-estimate": plan(lines, axis=1, part=LINES, flag="FFTW_ESTIMATE"),
        "x.fftw-measure": plan(lines, axis=1, part=LINES, flag="FFTW_MEASURE"),
        "x.fftw-estimate-tiles": plan(lines, axis=1, part=32, flag="FFTW_ESTIMATE"),
        "x.fftw-measure-tiles": plan(lines, axis=1, part=32, flag="FFTW_MEASURE"),
        "y.numpy": lambda: np.fft.ifft(columns, axis=0),
        "y.scipy": lambda: scipy.fft.ifft(columns, axis=0),
        "y.fftw-estimate": plan(columns, axis=0, part=KEPT, flag="FFTW_ESTIMATE"),
        "y.fftw-measure": plan(columns, axis=0, part=KEPT, flag="FFTW_MEASURE"),
        "y.fftw-estimate-tiles": plan(columns, axis=0, part=64, flag="FFTW_ESTIMATE", padding=8),
        "y.fftw-measure-tiles": plan(columns, axis=0, part=64, flag="FFTW_MEASURE", padding=8),
    }
    return timed(ways, 20 * repeats, baseline="x.scipy")


def plan(values: Complex, *, axis: int, part: int, flag: str, padding: int = 0) -> Work:
    """FFTW out of place over `values`, `part` lines at a time with rows `padding` values apart; in place for all."""
    height, width = values.shape
    shape = (part, width) if axis else (height, part)
    padded = (shape[0], shape[1] + padding)
    source, target = (pyfftw.zeros_aligned(padded, "complex64")[:, : shape[1]] for _ in range(2))
    if part == values.shape[1 - axis]:
        target = source
    execute = pyfftw.FFTW(source, target, axes=(axis,), direction="FFTW_BACKWARD", flags=(flag,)).execute
    count = values.shape[1 - axis] // part

    def work() -> None:
        for _ in range(count):
            execute()

    return work


def timed(ways: dict[str, Work], repeats: int, *, baseline: str) -> list[report.Row]:
    """Milliseconds of each way, run in alternation."""
    for work in ways.values():
        work()
    samples: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, work in ways.items():
            start = time.perf_counter()
            work()
            samples[name].append(1e3 * (time.perf_counter() - start))
    return [report.row(name, values, "ms", samples[baseline]) for name, values in samples.items()]


def main() -> None:
    """Measure, print, and write JSON where asked to."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--json", type=Path, default=None, metavar="FILE")
    args = parser.parse_args()
    rows = main_job(args.repeats) + libraries(args.repeats)
    report.show(rows, title="FFT choice (one thread; set OMP_NUM_THREADS=1)")
    if args.json is not None:
        report.write(rows, args.json, about=report.environment())


if __name__ == "__main__":
    main()
