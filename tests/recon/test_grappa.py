"""GRAPPA: the pattern is found whatever it is, and coils that are shifted copies of k-space are restored exactly."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from scipy import fft

import recon.grappa
from kernels.contract import Complex
from recon.errors import ScanError
from recon.grappa import (
    WIDTH,
    Lattice,
    Mask,
    Problem,
    Weights,
    calibrate,
    centre_of,
    fill,
    gram,
    groups_of,
    lattice_of,
    spanned,
)
from tests import tolerances
from tests.laws import assert_near, distance
from tests.recon.builders import noise

RIDGE = 1e-6
Steps = tuple[int, int, int]  # step_z, step_y, shift
PATTERNS: tuple[Steps, ...] = ((1, 2, 0), (1, 3, 0), (1, 4, 0), (2, 1, 0), (2, 2, 0), (2, 2, 1), (2, 4, 2))
CENTRE = 16


def pattern(grid: tuple[int, int], steps: Steps, *, origin: tuple[int, int] = (0, 0)) -> Mask:
    """The lines (kz, ky) of a lattice, by the definition."""
    z, y = np.indices(grid)
    m, left = np.divmod(z - origin[0], steps[0])
    return (left == 0) & ((y - origin[1] - m * steps[2]) % steps[1] == 0)


def with_centre(mask: Mask, lines: int = CENTRE) -> Mask:
    """The same and a fully measured centre."""
    full = mask.copy()
    full[tuple(slice(max(0, n // 2 - lines // 2), n // 2 + lines // 2) for n in mask.shape)] = True
    return full


@pytest.mark.parametrize("steps", [*PATTERNS, (4, 2, 0), (1, 5, 0), (3, 2, 1), (3, 3, 2)])
@pytest.mark.parametrize("origin", [(0, 0), (1, 2)])
def test_the_pattern_is_found(steps: Steps, origin: tuple[int, int]) -> None:
    mask = pattern((40, 48), steps, origin=origin)
    sampled = with_centre(mask)
    lattice = lattice_of(sampled, centre_of(sampled))
    assert lattice is not None
    assert lattice.acceleration == steps[0] * steps[1]
    again = (lattice.step_z, lattice.step_y, lattice.shift)
    assert np.array_equal(pattern((40, 48), again, origin=lattice.origin), mask)


def test_a_plane_has_a_pattern_too() -> None:
    sampled = with_centre(pattern((1, 48), (1, 3, 0), origin=(0, 1)))
    assert centre_of(sampled) == (slice(0, 1), slice(16, 32))
    assert lattice_of(sampled, centre_of(sampled)) == Lattice(1, 3, 0, (0, 1))


def test_missing_lines_do_not_hide_the_pattern() -> None:
    rng = np.random.default_rng(1)
    mask = pattern((40, 48), (2, 4, 2))
    sampled = with_centre(mask & (rng.random(mask.shape) > 0.2))
    lattice = lattice_of(sampled, centre_of(sampled))
    assert lattice is not None and (lattice.step_z, lattice.step_y, lattice.shift) == (2, 4, 2)


def test_lines_anywhere_have_no_pattern() -> None:
    sampled = with_centre(np.random.default_rng(2).random((40, 48)) > 0.7)
    lattice = lattice_of(sampled, centre_of(sampled))
    assert lattice is not None and lattice.acceleration == 1


def test_everything_measured_leaves_nothing_outside_the_centre() -> None:
    sampled = np.ones((4, 6), np.bool_)
    centre = centre_of(sampled)
    assert centre == (slice(0, 4), slice(0, 6))
    assert lattice_of(sampled, centre) is None


def test_no_centre_is_an_empty_box() -> None:
    sampled = pattern((1, 32), (1, 2, 0), origin=(0, 1))
    assert centre_of(sampled) == (slice(0, 0), slice(16, 16))


def test_partial_fourier_is_not_filled_but_the_last_step_is() -> None:
    sampled = with_centre(pattern((1, 48), (1, 3, 0)))
    sampled[:, :9] = False
    found = spanned(sampled, Lattice(1, 3, 0, (0, 0)))
    assert np.array_equal(np.flatnonzero(found), np.arange(9, 48))


def shifted_copies(grid: tuple[int, int, int], steps: Steps) -> Complex:
    """K-space [coil, kz, ky, kx] of white noise seen by one coil for each place in the cell, moved there.

    A missing line of one coil is then a measured line of another: exact weights exist, of norm 1 and with one source.
    """
    base = noise(np.random.default_rng(5), (1, *grid))[0]
    shifts = product(range(steps[0]), range(steps[1]))
    copies = [np.roll(base, shift, axis=(0, 1)) for shift in shifts] + [np.roll(base, (-1, -1), axis=(0, 1))]
    return np.stack(copies)


def hybrid(kspace: Complex) -> Complex:
    """K-space [coil, kz, ky, kx] transformed along x: [coil, x, kz, ky]."""
    lines = fft.fftshift(fft.ifft(fft.ifftshift(kspace, axes=-1), axis=-1, norm="ortho"), axes=-1)
    return np.ascontiguousarray(np.moveaxis(lines, -1, 1))


def restored(kspace: Complex, sampled: Mask) -> Complex:
    """Hybrid lines, filled."""
    lines = hybrid(kspace * sampled[:, :, np.newaxis])
    centre = centre_of(sampled)
    lattice = lattice_of(sampled, centre)
    assert lattice is not None
    fill(lines, sampled, lattice, calibrate(kspace[:, centre[0], centre[1]], lattice, ridge=RIDGE))
    return lines


@pytest.mark.parametrize("steps", PATTERNS)
def test_shifted_copies_are_restored(steps: Steps) -> None:
    grid = (1, 48, 40) if steps[0] == 1 else (32, 32, 24)
    kspace = shifted_copies(grid, steps)
    sampled = with_centre(pattern(grid[:2], steps))
    lines = restored(kspace, sampled)
    # The exact weights leave no residual and have unit norm, so ridge regression leaves at most √RIDGE of the power.
    # Away from the edges, where sources are missing: they reach up to three steps.
    inner = tuple(slice(3 * step, n - 3 * step) if n > 1 else slice(0, 1) for n, step in zip(grid, steps, strict=False))
    wanted = hybrid(kspace)
    assert distance(lines[..., inner[0], inner[1]], wanted[..., inner[0], inner[1]]) < 3 * np.sqrt(RIDGE)


def test_what_was_measured_stays_and_what_is_beyond_stays_empty() -> None:
    kspace = shifted_copies((1, 48, 32), (1, 3, 0))
    sampled = with_centre(pattern((1, 48), (1, 3, 0)))
    sampled[:, :9] = False
    lines = restored(kspace, sampled)
    before = hybrid(kspace * sampled[:, :, np.newaxis])
    assert np.array_equal(lines[:, :, sampled], before[:, :, sampled])
    assert not lines[..., :9].any()
    assert lines[..., 9:].any(axis=(0, 1, 2)).all()


def convolved(kspace: Complex, line: tuple[int, int], group: Weights, target: int) -> Complex:
    """[coil, kx] of one target by the sum that defines GRAPPA; k-space is periodic along kx, zero beyond its edges."""
    total = np.zeros((len(kspace), kspace.shape[-1]), np.complex128)
    for s, (dz, dy) in enumerate(group.sources):
        z, y = line[0] + dz, line[1] + dy
        if 0 <= z < kspace.shape[1] and 0 <= y < kspace.shape[2]:
            for dx in range(WIDTH):
                total += group.values[target, :, dx, :, s] @ np.roll(kspace[:, z, y], WIDTH // 2 - dx, axis=-1)
    return total


@pytest.mark.parametrize("steps", [(1, 3, 0), (2, 2, 1)])
def test_filling_is_the_convolution_of_the_paper(steps: Steps) -> None:
    grid = (1, 32, 15) if steps[0] == 1 else (20, 20, 16)
    kspace = noise(np.random.default_rng(6), (4, *grid))
    mask = pattern(grid[:2], steps)
    lattice = Lattice(*steps, (0, 0))
    weights = calibrate(noise(np.random.default_rng(7), (4, min(grid[0], 18), 18, 32)), lattice)
    measured = kspace * mask[:, :, np.newaxis]
    lines = hybrid(measured)
    fill(lines, mask, lattice, weights)
    places = np.argwhere(mask)[:: max(1, mask.sum() // 20)]
    for group, (z, y) in product(weights, places.tolist()):
        for i, target in enumerate(group.targets):
            at = (z + target[0], y + target[1])
            if all(p < n for p, n in zip(at, grid, strict=False)):
                wanted = hybrid(convolved(measured, (z, y), group, i)[:, None, None])[:, :, 0, 0]
                assert_near(lines[:, :, at[0], at[1]], wanted, tolerances.sum_of(4 * WIDTH * 8) * 8)


def test_all_targets_of_the_cell_have_sources_near_them() -> None:
    weights = calibrate(noise(np.random.default_rng(8), (2, 24, 24, 40)), Lattice(2, 4, 2, (0, 0)))
    targets = sorted(target for group in weights for target in group.targets)
    assert targets == [place for place in product(range(2), range(4)) if place != (0, 0)]
    for group in weights:
        assert group.values.shape == (len(group.targets), 2, WIDTH, 2, 8)


def test_the_real_product_is_the_complex_one() -> None:
    rows = noise(np.random.default_rng(9), (20, 50))
    assert_near(gram(rows), rows @ rows.conj().T, 2 * tolerances.sum_of(100))


def test_slabs_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    kspace = shifted_copies((1, 48, 40), (1, 3, 0))
    sampled = with_centre(pattern((1, 48), (1, 3, 0)))
    whole = restored(kspace, sampled)
    monkeypatch.setattr(recon.grappa, "SLAB_BYTES", 1)
    assert_near(restored(kspace, sampled), whole, tolerances.sum_of(4 * 4 * 4))


def test_fewer_sources_where_there_are_few_calibration_lines() -> None:
    weights = calibrate(noise(np.random.default_rng(10), (4, 1, 8, 64)), Lattice(1, 3, 0, (0, 0)))
    assert [len(group.sources) for group in weights] == [2]


def test_too_little_to_calibrate_with_is_refused() -> None:
    with pytest.raises(ScanError) as caught:
        calibrate(noise(np.random.default_rng(11), (8, 1, 4, 32)), Lattice(1, 4, 0, (0, 0)))
    assert str(caught.value) == (
        "grappa finds 4 × 1 fully sampled lines of 32 samples at the centre of k-space, too few to calibrate an"
        " acceleration of 4 with 8 coils: measure more calibration lines or use fft"
    )


def test_many_lines_do_not_make_a_calibration_narrow() -> None:
    """The few samples nearest to kx = 0 are alike, and weights from them hand on too much noise."""
    region = noise(np.random.default_rng(1), (2, 24, 24, 64))
    lattice = Lattice(3, 2, 0, (0, 0))
    (sources, targets), *_ = groups_of(lattice, 8, planes=24).items()
    problem = Problem.of(region, tuple(targets), sources)
    first, last = problem.places[2]
    assert last - first == 24
