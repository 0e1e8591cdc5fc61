"""Where samples on a gradient's ramps lie, and their image."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from recon.errors import HeaderError
from recon.scan import Encoding, Space, Trajectory, TrajectoryDescription
from recon.trapezoid import Trapezoid, inverse, positions, trapezoid_of

NAMES = ("rampUpTime", "flatTopTime", "rampDownTime", "acqDelayTime", "dwellTime", "numSamples", "echoSpacing")
VALUES = dict(zip(NAMES, (100, 300, 80, 20, 2.5, 176, 500), strict=True))


def described(**values: float | str) -> Encoding:
    space = Space((1, 8, 128), (5.0, 240.0, 480.0))
    description = TrajectoryDescription("ConventionalEPI", VALUES | values)
    return Encoding(space, space, {}, Trajectory.EPI, description=description)


def test_the_description_is_read_by_its_names() -> None:
    assert trapezoid_of(described()) == Trapezoid(100, 300, 80, 20, 2.5, 176, 500)
    assert trapezoid_of(replace(described(), description=None)) is None
    assert trapezoid_of(replace(described(), trajectory=Trajectory.CARTESIAN)) is None


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"rampUpTime": "long"}, "rampUpTime of the trajectory description is 'long', expected a number"),
        ({"dwellTime": -1.0}, "dwellTime of the trajectory description is -1.0, expected a number of at least 0"),
        ({"numSamples": 1}, "the trajectory description has 1 samples, 2.5 µs apart"),
        ({"numSamples": 190}, "190 samples of 2.5 µs after 20 µs end at 495 µs, the gradient"),
        ({"echoSpacing": 400}, "echoSpacing is 400 µs, the gradient of one line takes 480 µs: correct the header"),
    ],
)
def test_a_description_that_contradicts_itself_is_refused(values: dict[str, float | str], words: str) -> None:
    with pytest.raises(HeaderError, match=words.replace("(", r"\(").replace("+", r"\+")):
        trapezoid_of(described(**values))


def test_a_missing_time_is_named() -> None:
    encoding = described()
    assert encoding.description is not None
    fewer = {name: value for name, value in encoding.description.values.items() if name != "flatTopTime"}
    with pytest.raises(HeaderError, match="flatTopTime of the trajectory description is missing"):
        trapezoid_of(replace(encoding, description=TrajectoryDescription("ConventionalEPI", fewer)))


def test_positions_are_the_gradient_integrated() -> None:
    """Against its trapezoid sum in steps of 0.01 µs, which parts of these lengths make exact."""
    gradient = Trapezoid(100, 300, 80, 20, 2.5, 176)
    time = np.arange(48_001) / 100
    height = np.interp(time, [0, 100, 400, 480], [0, 1, 1, 0])
    area = np.concatenate([[0], np.cumsum((height[1:] + height[:-1]) / 200)])
    middle = np.interp(20 + 2.5 * (np.arange(176) + 0.5), time, area)
    covered = np.interp(460, time, area) - np.interp(20, time, area)
    np.testing.assert_allclose(positions(gradient, 128), (middle - area[-1] / 2) * 128 / covered, atol=1e-6)


def test_the_image_of_even_samples_is_the_inverse_transform() -> None:
    """But for the damping, of one part in ten thousand."""
    size = 24
    x = np.arange(size) - size // 2
    matrix = inverse(x.astype(np.float64), size)
    exact = np.exp(2j * np.pi / size * np.outer(x, x)) / np.sqrt(size)
    np.testing.assert_allclose(matrix, exact / (1 + 1e-4), atol=1e-6)


def test_samples_on_ramps_make_the_image_of_the_grid() -> None:
    """A box inside the middle half of the field of view, whose k-space is known at every point.

    The grid's own image misses what lies beyond its band as this one does; what the two see of it at the edge of the
    band differs, 1/(πN) of a box's height.
    """
    size, width, centre = 128, 0.31, 0.04
    gradient = Trapezoid(100, 300, 80, 20, 2.5, 176)

    def kspace(k: np.ndarray) -> np.ndarray:
        return np.sqrt(size) * width * np.sinc(k * width) * np.exp(-2j * np.pi * k * centre)

    grid = np.arange(size) - size // 2
    exact = np.exp(2j * np.pi / size * np.outer(grid, grid)) / np.sqrt(size) @ kspace(grid)
    for sign in (1, -1):
        k = sign * positions(gradient, size)
        found = inverse(k, size) @ kspace(k)
        assert np.abs(found - exact).max() < 2 / (np.pi * size)
        error = np.linalg.norm(found - exact) / np.linalg.norm(exact)
        assert error < 5e-3
        uncorrected = inverse(np.linspace(k[0], k[-1], len(k)), size) @ kspace(k)
        assert np.linalg.norm(uncorrected - exact) / np.linalg.norm(exact) > 20 * error
