"""Partial Fourier and asymmetric echoes, completed where the phase is smooth, by every method that offers it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from kernels.contract import Complex
from recon.errors import RecipeError, ScanError
from recon.halfspace import ENOUGH, Extent, homodyne, pocs, smooth_phase
from recon.recipe import Recipe
from recon.scan import Image
from recon.simulate import nrmse
from tests import tolerances
from tests.recon.methods.phantoms import CPU, blob, distance, encoding, frame_of, image_by, noise_kspace
from tests.recon.methods.test_cg_sense import measured
from tests.recon.methods.test_sense import white_frame

HOW = ("homodyne", "pocs")


def smooth_object(shape: tuple[int, ...], bend: float) -> Complex:
    """Real blobs of σ = 2 voxels times a quadratic phase of `bend` radians at one field of view from its middle."""
    axes = np.meshgrid(*((np.arange(n) - n // 2) / n for n in shape), indexing="ij")
    real = sum(blob(shape, tuple(place * np.array(shape))) for place in (0.0, 0.2, -0.25))
    phase = 0.7 + bend * sum((axis - 0.1) ** 2 for axis in axes)
    return np.asarray(real * np.exp(1j * phase), np.complex64)


def one_sided(image: Complex, extents: tuple[Extent, ...]) -> Complex:
    """The zero-filled image of what `extents` measured."""
    kspace = CPU.fft(image, axes=image.ndim)
    for axis, extent in enumerate(extents):
        place = np.arange(image.shape[axis]) - image.shape[axis] // 2
        np.moveaxis(kspace, axis, 0)[(place < extent.low) | (place > extent.high)] = 0
    return CPU.ifft(kspace, axes=image.ndim)


@pytest.mark.parametrize("side", [Extent(-8, 31), Extent(-32, 6)], ids=str)
def test_a_constant_phase_is_completed_exactly(side: Extent) -> None:
    """K-space of a real image is symmetric: one step of homodyne is exact, POCS comes as near as it is asked to."""
    image = smooth_object((64, 48), 0.0)
    extents = (side, Extent())
    given = one_sided(image, extents)
    # The lowest sample of an even axis has no mirror image; the blobs have nothing there.
    assert distance(homodyne(given, extents, CPU), image) < 1e-5
    assert distance(pocs(given, extents, CPU), image) < 1e-2 < distance(given, image)


@pytest.mark.parametrize("complete", [homodyne, pocs])
@pytest.mark.parametrize(
    "extents",
    [(Extent(-8, 31), Extent()), (Extent(), Extent(-24, 6)), (Extent(-8, 31), Extent(-24, 6))],
    ids=["first", "second", "both"],
)
def test_a_smooth_phase_is_completed_nearly(complete: Any, extents: tuple[Extent, Extent]) -> None:
    image = smooth_object((64, 48), 2.0)
    given = one_sided(image, extents)
    assert distance(complete(given, extents, CPU), image) < tolerances.HALVED * distance(given, image)


def test_two_directions_need_pocs_for_the_corner() -> None:
    """What neither side of the corner measured, homodyne leaves zero; projections find it by the symmetry."""
    image = smooth_object((64, 64), 1.0)
    extents = (Extent(-6, 31), Extent(-6, 31))
    given = one_sided(image, extents)
    assert distance(pocs(given, extents, CPU), image) < distance(homodyne(given, extents, CPU), image)


def test_pocs_keeps_what_was_measured() -> None:
    extents = (Extent(-8, 31), Extent())
    given = one_sided(smooth_object((64, 48), 4.0), extents)
    before, after = (CPU.fft(image, axes=2)[24:] for image in (given, pocs(given, extents, CPU)))
    assert distance(after, before) < 1e-5


def sided(kspace: Complex, sampled: NDArray[np.bool_], lines: int, samples: int) -> tuple[Complex, NDArray[np.bool_]]:
    """K-space without its first `lines` lines and first `samples` samples of each readout."""
    kept, mask = kspace.copy(), sampled.copy()
    mask[:, :lines] = False
    kept[..., :samples] = 0
    return kept, mask


def left_over(kspace: Complex, mask: NDArray[np.bool_], lines: int, samples: int) -> float:
    """The most that completion may leave of an image inside `mask`, relative to it, from whole k-space of its coils.

    A coil image is p (a + ib), where p is the phase of k-space's centre, taken as smooth, a and b are real. POCS ends
    where its error e lies on the missing side S of k-space and e = P(p² ē) − 2 P(p ib), where P keeps S; the first is
    nothing, since ē lies opposite to S. Homodyne weighs k-space by 1 + o, o odd and at most 1: its error is p times
    i (o b − b). Both are at most 2 ‖b‖, to what is missing together with its mirror image. A root of squares adds none.
    """
    images = CPU.ifft(kspace, axes=2)[:, 0]
    sides = tuple(Extent(cut - 24, 23) if cut else Extent() for cut in (lines, samples))
    unreal = (images * smooth_phase(images, sides, CPU).conj()).imag
    y, x = np.meshgrid(np.arange(48) - 24, np.arange(48) - 24, indexing="ij")
    missing, mirrored = ((sign * y < sides[0].low) | (sign * x < sides[1].low) for sign in (1, -1))
    unknown = CPU.ifft(kspace * (missing & mirrored), axes=2)
    whole = np.linalg.norm(CPU.rss(CPU.ifft(kspace, axes=2))[mask])
    return float((2 * np.linalg.norm(unreal) + np.linalg.norm(unknown)) / whole) + ENOUGH


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("method", ["fft", "grappa", "sense", "cg-sense"])
@pytest.mark.parametrize(("lines", "samples"), [(12, 0), (0, 12), (12, 12)], ids=["lines", "echo", "both"])
def test_every_method_completes(method: str, how: str, lines: int, samples: int) -> None:
    kspace, undersampled, mask = white_frame(2)
    full = np.ones((1, 48), np.bool_)
    sampled = full if method == "fft" else undersampled
    given, left = sided(kspace, sampled, lines, samples)
    truth = image_by(method, frame_of(kspace, sampled=sampled)).pixels[0][mask]
    errors = [
        distance(image_by(method, frame_of(given, sampled=left), partial_fourier=each).pixels[0][mask], truth)
        for each in ("off", how)
    ]
    # Combined coils are no less real than each of them: maps take their phase off.
    assert errors[1] <= left_over(kspace, mask, lines, samples) < errors[0]


def test_noise_of_a_scan_stays_what_it_is_when_nothing_is_missing() -> None:
    kspace = noise_kspace((3, 1, 32, 24))
    plain, asked = (image_by("fft", frame_of(kspace), partial_fourier=how) for how in ("off", "pocs"))
    assert distance(asked.pixels, plain.pixels) < 1e-6
    assert asked.comments == ()


def test_an_interpolated_and_cropped_image_is_completed_alike() -> None:
    """Sides are measured in the encoded grid: twice the voxels, and half of the field along the readout."""
    kspace, _, _ = white_frame(2)
    given, left = sided(kspace, np.ones((1, 48), np.bool_), 14, 0)
    finer = encoding((1, 48, 48), recon=(1, 96, 48), field_mm=(1.0, 48.0, 24.0))
    fine = image_by("fft", frame_of(given, sampled=left, space=finer), partial_fourier="homodyne").pixels
    coarse = image_by("fft", frame_of(given, sampled=left), partial_fourier="homodyne").pixels
    # Interpolation keeps values, and all but the filters is done voxel by voxel: four transforms round on either side.
    assert distance(fine[..., ::2, ::2], coarse[..., 12:36]) < 2 * 4 * tolerances.fft(96 * 96)


@pytest.mark.parametrize("how", HOW)
def test_a_whole_scan_comes_nearer_to_its_truth(how: str) -> None:
    simulated = measured("brain-se", 48, noise=0)
    kspace, _, mask = white_frame(2)
    given, left = sided(kspace, np.ones((1, 48), np.bool_), 14, 0)
    scale = np.float32(np.linalg.norm(simulated.truth[0].pixels) / np.linalg.norm(CPU.rss(CPU.ifft(kspace, axes=2))))

    def error(parameter: str) -> float:
        image: Image = image_by("fft", frame_of(given, sampled=left), partial_fourier=parameter)
        return nrmse(image.pixels[0] * scale, simulated.truth[0])

    assert error(how) <= left_over(kspace, mask, 14, 0) < error("off")


@pytest.mark.parametrize("how", HOW)
def test_the_image_says_how_it_was_completed(how: str) -> None:
    sampled = np.arange(48)[None] >= 10
    (comment,) = image_by("fft", frame_of(noise_kspace((2, 1, 48, 32)), sampled=sampled), partial_fourier=how).comments
    assert comment == f"partial Fourier along kspace_encode_step_1: 10 of 48 lines are completed by {how}"


def test_too_little_beyond_the_centre_is_refused() -> None:
    sampled = np.arange(48)[None] >= 22
    with pytest.raises(ScanError) as caught:
        image_by("fft", frame_of(noise_kspace((2, 1, 48, 32)), sampled=sampled), partial_fourier="pocs")
    assert str(caught.value) == (
        "kspace_encode_step_1 was measured from -2 to 23 about the centre of k-space, expected at least 4 samples on"
        " either side to find the phase: set partial_fourier to off"
    )


def test_several_sets_of_maps_have_no_phase_to_complete_with() -> None:
    with pytest.raises(RecipeError) as caught:
        Recipe("cg-sense", {"sets": 2, "partial_fourier": "pocs"})
    assert str(caught.value) == (
        "sets is 2, whose images are combined without phase, but partial_fourier is pocs, which needs it: ask for"
        " partial_fourier off or sets 1"
    )
