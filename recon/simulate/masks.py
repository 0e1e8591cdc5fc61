"""Which lines of a Cartesian measurement a faster one takes: elliptical and variable-density Poisson-disc patterns."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from recon.errors import RecipeError
from recon.lines import step_limits
from recon.mrd.header import parse_header, write_header
from recon.scan import Encoding, Flag, Readouts, Scan
from recon.simulate.heads import flag
from recon.simulate.phantom import Real
from recon.simulate.scans import SimulatedScan

Mask = NDArray[np.bool_]
GROWTH = 3.0  # how much farther apart lines are at the edge of k-space than at its centre
HALVINGS = 16  # of the interval in which the distance of neighbours is sought
ENDS = sum(Flag[name].mask for name in Flag.__members__ if name.startswith(("FIRST_IN_", "LAST_IN_")))


def elliptical(shape: tuple[int, int]) -> Mask:
    """Lines [kz, ky] inside the ellipse that touches the sides of the grid: π/4 of them."""
    return np.asarray(_radius(shape) <= 1)


def poisson(shape: tuple[int, int], acceleration: float, rng: Generator, *, centre: int = 16) -> Mask:
    """About one in `acceleration` lines [kz, ky], no two near each other and denser inside, and all of the `centre`.

    The distance that neighbours keep grows linearly from the centre, (1 + GROWTH)-fold at the ellipse outside of which
    there are none (Poisson disc of varying density, doi:10.1016/j.mri.2020.11.012, by dart throwing). Raises
    RecipeError where more lines are asked for than the ellipse has, or fewer than the centre.
    """
    _check_density(shape, acceleration, centre)
    order = rng.permutation(shape[0] * shape[1])
    low, high = 0.0, float(max(shape))
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        if _thrown(shape, middle, order, centre).sum() * acceleration > shape[0] * shape[1]:
            low = middle
        else:
            high = middle
    return _thrown(shape, high, order, centre)


def _check_density(shape: tuple[int, int], acceleration: float, centre: int) -> None:
    size = shape[0] * shape[1]
    middle = np.zeros(shape, np.bool_)
    middle[_middle(shape, centre)] = True
    fewest, most = int(middle.sum()), int((middle | elliptical(shape)).sum())
    if not fewest < size / acceleration <= most:
        raise RecipeError(
            f"acceleration is {acceleration:g} of {shape[0]} × {shape[1]} lines, expected from {size / most:.3g}, which"
            f" takes all lines of the ellipse, to below {size / fewest:.3g}, where the centre of {centre} × {centre}"
            " lines is all that is left: choose one between"
        )


def _radius(shape: tuple[int, int]) -> Real:
    """Distance from the centre, 1 at the middle of each side: [kz, ky]; an axis of one line has none."""
    z, y = (np.abs(np.arange(n) - n // 2) / max(n / 2, 1) for n in shape)
    return np.asarray(np.hypot(z[:, None], y), np.float64)


def _thrown(shape: tuple[int, int], distance: float, order: NDArray[np.int64], centre: int) -> Mask:
    radius = _radius(shape)
    keep = distance * (1 + GROWTH * radius) / (1 + GROWTH)
    taken = np.zeros(shape, np.bool_)
    for z, y in zip(*np.unravel_index(order, shape), strict=True):
        reach = int(keep[z, y])
        near = taken[max(0, z - reach) : z + reach + 1, max(0, y - reach) : y + reach + 1]
        if radius[z, y] <= 1 and not _any_within(near, (min(z, reach), min(y, reach)), keep[z, y]):
            taken[z, y] = True
    taken[_middle(shape, centre)] = True
    return taken


def _middle(shape: tuple[int, int], centre: int) -> tuple[slice, slice]:
    z, y = (slice(max(0, n // 2 - centre // 2), n // 2 + (centre + 1) // 2) for n in shape)
    return z, y


def _any_within(near: Mask, place: tuple[int, int], distance: float) -> bool:
    z, y = np.nonzero(near)
    return bool((np.hypot(z - place[0], y - place[1]) < distance).any())


def undersampled(simulated: SimulatedScan, sampled: Mask) -> SimulatedScan:
    """What the same scanner would send if it measured only the lines `sampled` [kz, ky]; the truth is the same.

    Raises RecipeError where the mask is not of the measurement's grid.
    """
    (encoding,) = simulated.scan.header.encodings
    grid = encoding.encoded.matrix[:2]
    if sampled.shape != grid:
        raise RecipeError(f"the mask has {sampled.shape} lines (z, y), the measurement {grid}: make it so large")
    *before, last = simulated.scan.readouts
    kept = _on(last, encoding, sampled)
    head = last.head[kept].copy()
    head["flags"] &= np.uint64(~ENDS & (2**64 - 1))
    flag(head)
    first = sum(len(run.head) for run in before)
    start_s = np.concatenate([simulated.start_s[:first], simulated.start_s[first:][kept]])
    fewer = replace(encoding, acceleration=(-(-sampled.size // int(sampled.sum())), 1))
    header = parse_header(write_header(replace(simulated.scan.header, encodings=(fewer,))))
    scan = Scan(header, (*before, Readouts(head, last.samples[kept])), simulated.scan.waveforms)
    return replace(simulated, scan=scan, start_s=start_s)


def _on(run: Readouts, encoding: Encoding, sampled: Mask) -> Mask:
    """Which readouts of `run` are lines of the mask."""
    step_1, step_2 = step_limits(encoding)
    y = run.head["kspace_encode_step_1"].astype(np.int64) - step_1.center + sampled.shape[1] // 2
    z = run.head["kspace_encode_step_2"].astype(np.int64) - step_2.center + sampled.shape[0] // 2
    return np.asarray(sampled[z, y])
