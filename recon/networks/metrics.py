"""How near an image is to the truth, and what was done to its edges, means, noise and ringing.

Error measures are those of fastMRI (doi:10.48550/arXiv.1811.08839): of magnitudes, over a whole volume, where the range
of the data is the truth's largest value.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from math import log10

import numpy as np
from numpy.typing import NDArray

Real = NDArray[np.float64]
WINDOW = 7  # pixels along each axis of a window of SSIM
STEP = 0.25  # pixels, of an edge's profile
PLATEAU = (4.0, 9.0)  # pixels from an edge, where it has its values
STRIP = (1.0, 6.0)  # pixels from an edge, where it rings


@dataclass(frozen=True, slots=True)
class Errors:
    """PSNR in decibels, structural similarity, normalised mean square error."""

    psnr_db: float
    ssim: float
    nmse: float


def errors(image: NDArray[np.generic], truth: NDArray[np.generic]) -> Errors:
    """The errors of |image| [..., y, x] against |truth|, both in the same units."""
    found, wanted = np.abs(image).astype(np.float64), np.abs(truth).astype(np.float64)
    square, largest = float(np.mean((found - wanted) ** 2)), float(wanted.max())
    return Errors(
        psnr_db=10 * log10(largest**2 / square) if square else np.inf,
        ssim=ssim(found, wanted),
        nmse=square / float(np.mean(wanted**2)),
    )


def mean_of(found: list[Errors]) -> dict[str, float]:
    """The mean of each measure."""
    rows = [asdict(one) for one in found]
    return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}


def ssim(image: Real, truth: Real) -> float:
    """Structural similarity of [..., y, x], the mean over all windows that lie inside (doi:10.1109/TIP.2003.819861).

    Uniform windows of 7 × 7 with the covariance of a sample, constants 0.01 and 0.03 of the truth's largest value.
    """
    c1, c2 = (0.01 * truth.max()) ** 2, (0.03 * truth.max()) ** 2
    means = mx, my = window_mean(image), window_mean(truth)
    sample = WINDOW**2 / (WINDOW**2 - 1)
    products = (image * image, truth * truth, image * truth)
    pairs = ((mx, mx), (my, my), means)
    xx, yy, xy = (sample * (window_mean(p) - a * b) for p, (a, b) in zip(products, pairs, strict=True))
    ratio = (2 * mx * my + c1) * (2 * xy + c2) / ((mx * mx + my * my + c1) * (xx + yy + c2))
    return float(ratio.mean())


def window_mean(x: Real) -> Real:
    """The mean of each window of 7 × 7 inside [..., y, x]."""
    from scipy.ndimage import uniform_filter1d

    half = WINDOW // 2
    for axis in (-2, -1):
        x = uniform_filter1d(x, WINDOW, axis=axis)
    inside: Real = x[..., half:-half, half:-half]
    return inside


def distances(shape: tuple[int, int], centre: tuple[float, float], radius: float) -> Real:
    """How many pixels each pixel [y, x] lies inside a disc, negative outside; `centre` (y, x) from the middle."""
    y, x = (np.arange(n) - n // 2 - c for n, c in zip(shape, centre, strict=True))
    return np.asarray(radius - np.hypot(y[:, None], x), np.float64)


def edge_width(image: Real, depth: Real) -> float:
    """Pixels in which an edge rises from 10 to 90 % of what is on its two sides; `depth` as `distances` gives it."""
    low, high = plateaus(image, depth)
    bins = np.arange(-PLATEAU[0], PLATEAU[0] + STEP, STEP)
    number = np.digitize(depth, bins)
    profile = np.array([image[number == i].mean() for i in range(1, len(bins))])
    rising = (profile - low) / (high - low)
    middle = bins[:-1] + STEP / 2
    return _crossing(rising, middle, 0.9) - _crossing(rising, middle, 0.1)


def plateaus(image: Real, depth: Real) -> tuple[float, float]:
    """The mean outside and the mean inside an edge, away from it."""
    far = (np.abs(depth) > PLATEAU[0]) & (np.abs(depth) < PLATEAU[1])
    return float(image[far & (depth < 0)].mean()), float(image[far & (depth > 0)].mean())


def ringing(image: Real, depth: Real) -> float:
    """The mean square beside an edge of what is neither of its sides' values."""
    beside = (np.abs(depth) > STRIP[0]) & (np.abs(depth) < STRIP[1])
    low, high = plateaus(image, depth)
    ideal = np.where(depth > 0, high, low)
    return float(np.mean((image - ideal)[beside] ** 2))


def bias(image: Real, truth: Real, region: NDArray[np.bool_]) -> float:
    """The mean in a region over the truth's, less 1."""
    return float(image[region].mean() / truth[region].mean() - 1)


def noise_in(replicas: Real, region: NDArray[np.bool_]) -> float:
    """The standard deviation over replicas [replica, y, x], root mean square over a region (doi:10.1002/mrm.21728)."""
    return float(np.sqrt(replicas.var(axis=0, ddof=1)[region].mean()))


def _crossing(rising: Real, place: Real, level: float) -> float:
    """Where the profile passes `level`, going out from the edge itself."""
    start = int(np.abs(place).argmin())
    step = 1 if level > 0.5 else -1
    i = start
    while 0 < i < len(place) - 1 and (rising[i] < level) == (level > 0.5):
        i += step
    a, b = i - step, i
    return float(place[a] + (level - rising[a]) * (place[b] - place[a]) / (rising[b] - rising[a]))
