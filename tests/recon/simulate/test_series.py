"""Protocols of many images: heads, headers, truth at the noise's own error, and what their pixels mean."""

from __future__ import annotations

import subprocess
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import kernels
from recon.assemble import Assembler
from recon.errors import RecipeError
from recon.export.dicom import to_dicom
from recon.mrd.header import parse_header
from recon.pipeline import reconstruct
from recon.recipe import Recipe
from recon.scan import COUNTERS, Counters, Flag, Image
from recon.simulate import PROTOCOLS, SimulatedScan, Snr, nrmse, simulate
from recon.simulate.anatomies import ABDOMEN, BREAST, VESSELS, labels
from recon.simulate.bolus import PERFUSIONS, STEP_S
from recon.simulate.coils import coil_grid_spectrum
from recon.simulate.dynamic import brain_curves, breast_curves, concentration
from recon.simulate.heads import IMAGE
from recon.simulate.measurement import geometry, head_array, oblique
from recon.simulate.objects import Region
from recon.simulate.phantom import Shapes
from recon.simulate.series import courses, encoding_of, exact_kspace, plane
from recon.simulate.tissue import TISSUES, inversion_recovery
from recon.simulate.truth import unit
from recon.simulate.weighted import (
    FLOW_PHASES,
    INVERSION,
    INVERSION_TIMES_MS,
    MOLLI,
    VENC_CM_S,
    WEIGHTINGS,
    _look_locker,
    inversion_times,
    pulse_wave,
)
from tests.recon.judges import needs

NAMES = ("abdomen-multiecho", "brain-ir", "heart-molli", "brain-dwi", "carotid-pc", "breast-dce", "brain-dsc")
FRAMES = dict(zip(NAMES, (18, 6, 8, 20, 16, 3, 6), strict=True))
CPU = kernels.on("cpu")


@cache
def small(name: str, *, noise: float = 1.0, matrix: int = 32) -> SimulatedScan:
    repetitions = {"breast-dce": 3, "brain-dsc": 3}.get(name, 1)
    return simulate(name, seed=1, matrix=matrix, coils=4, noise=noise, repetitions=repetitions)


def images(scan: SimulatedScan, **parameters: str) -> dict[Counters, Image]:
    return {image.counters: image for image in reconstruct(scan.scan, Recipe("fft", parameters), CPU)}


@pytest.mark.parametrize("name", NAMES)
def test_the_header_means_the_same_to_the_ismrmrd_package(name: str) -> None:
    import ismrmrd

    header = small(name).scan.header
    assert parse_header(header.xml) == header
    sequence = ismrmrd.xsd.CreateFromDocument(header.xml).sequenceParameters
    assert tuple(sequence.TE) == header.te_ms
    assert tuple(sequence.TI) == header.ti_ms
    assert [PROTOCOLS[name].timing.tr_ms] == sequence.TR
    assert [entry.bvalue for entry in sequence.diffusion] == [entry.b_s_mm2 for entry in header.diffusion]


@pytest.mark.parametrize("name", NAMES)
def test_readouts_keep_limits_clock_and_frames(name: str) -> None:
    scan = small(name)
    head, header = scan.scan.readouts[-1].head, scan.scan.header
    for counter in COUNTERS:
        limit = header.encodings[0].limits.get(counter)
        assert (head[counter].min(), head[counter].max()) == ((limit.minimum, limit.maximum) if limit else (0, 0))
    assert scan.start_s[0] == 0
    assert (np.diff(scan.start_s) > 0).all()
    assembler = Assembler(header)
    found = [frame for run in scan.scan.readouts for frame in assembler.add(run.head)] + assembler.finish()
    assert {frame.counters for frame in found} == {truth.counters for truth in scan.truth}
    assert len(found) == len(scan.truth) == FRAMES[name]
    assert all(frame.complete and not frame.warnings for frame in found)


@pytest.mark.parametrize("name", NAMES)
def test_fft_errs_as_the_noise_predicts(name: str) -> None:
    scan = small(name)
    found = images(scan)
    for truth in scan.truth:
        # A mean of `voxels` squares with kurtosis of at most 3, over all images of a scan; the whitening knows the
        # noise to 0.3 %.
        allowed = 5 / np.sqrt(2 * np.count_nonzero(truth.mask)) + 0.01
        error = nrmse(found[truth.counters].pixels[0], truth)
        assert error == pytest.approx(truth.predicted_nrmse, rel=allowed), truth.counters


@pytest.mark.parametrize("name", NAMES)
def test_the_same_seed_gives_the_same_bytes(name: str) -> None:
    one, other = (simulate(name, seed=4, matrix=16, coils=2, repetitions=1) for _ in range(2))
    for mine, yours in zip(one.scan.readouts, other.scan.readouts, strict=True):
        assert mine.head.tobytes() == yours.head.tobytes()
        assert mine.samples.tobytes() == yours.samples.tobytes()


@pytest.mark.parametrize("name", NAMES)
def test_dciodvfy_finds_no_error(name: str, tmp_path: Path) -> None:
    dciodvfy = needs("dciodvfy", "dicom3tools")
    scan = small(name)
    last = images(scan)[scan.truth[-1].counters]
    path = tmp_path / "image.dcm"
    path.write_bytes(to_dicom(last, scan.scan.header)[0])
    verdict = subprocess.run([dciodvfy, path], capture_output=True, text=True, check=False)
    errors = [line for line in (verdict.stdout + verdict.stderr).splitlines() if line.startswith("Error")]
    assert (verdict.returncode, errors) == (0, [])


def test_a_sum_of_transforms_is_the_transform_of_each_image() -> None:
    """K-space put together from shapes that change alike, against the whole object transformed for each image."""
    where = geometry(oblique((1, 0, 0), (0, 1, 0), about_x_deg=6, about_z_deg=3), (0, 0, 10))
    view = plane(VESSELS, where, field=head_array(3), view_mm=240.0)
    space = encoding_of((1, 24, 24), (5.0, 240.0, 240.0)).encoded

    def signal(state: int, region: Region) -> complex:
        fades = np.exp(-state * TISSUES[region.tissue].adc_mm2_s * 700)
        return TISSUES[region.tissue].density * fades * np.exp(1j * state * len(region.name))

    signals = [lambda region, state=state: signal(state, region) for state in range(3)]
    found = exact_kspace(view, signals, space)
    for state, course in enumerate(courses(view, signals)):
        whole = Shapes(view.shapes.center, view.shapes.semiaxes, course)
        exact = coil_grid_spectrum(whole, view.coils, matrix=(48, 24), field_of_view_mm=np.array([480.0, 240.0]))
        # complex64 sums of some 20 terms.
        bound = 20 * 2.0**-24 * np.abs(unit(space, 2) * exact).max()
        np.testing.assert_allclose(found[state, :, 0], unit(space, 2) * exact, rtol=0, atol=bound)


def test_images_say_their_weighting() -> None:
    echoes = images(small("abdomen-multiecho"))
    assert [echoes[Counters(contrast=i)].attributes["EchoTime"] for i in (0, 5)] == ["1.2", "8.2"]
    inversions = images(small("brain-ir"))
    times = [float(inversions[Counters(contrast=i)].attributes["InversionTime"]) for i in range(6)]
    assert tuple(times) == INVERSION_TIMES_MS
    diffusion = images(small("brain-dwi"))
    for number, weighting in enumerate(WEIGHTINGS):
        said = diffusion[Counters(set=number)].attributes
        assert float(said["DiffusionBValue"]) == weighting.b_s_mm2
        assert ("DiffusionGradientOrientation" in said) == (weighting.b_s_mm2 > 0)
    flow = images(small("carotid-pc"))
    assert "VelocityEncoding" not in flow[Counters()].attributes
    assert flow[Counters(set=1)].attributes["VelocityEncoding"] == f"{VENC_CM_S:g}"
    assert flow[Counters(set=1)].attributes["VelocityEncodingDirection"] == "0\n0\n1"


def test_repetitions_have_a_clock() -> None:
    scan = small("breast-dce")
    found = images(scan)
    ticks = [found[Counters(repetition=i)].time_stamp for i in range(3)]
    volume_s = 10 * 32 * 0.005
    # Each stamp is rounded down to 2.5 ms.
    np.testing.assert_allclose(np.diff(ticks) * 0.0025, volume_s, rtol=0, atol=0.0026)


@pytest.mark.parametrize("name", ["abdomen-multiecho", "brain-dwi", "heart-molli"])
def test_contrasts_sets_and_averages_have_a_first_and_a_last_readout(name: str) -> None:
    """The flags stand where the counters change, whatever lies between."""
    head = small(name).scan.readouts[-1].head
    for counter, names in {
        "CONTRAST": ["contrast", "repetition"],
        "SET": ["set", "repetition"],
        "AVERAGE": [*IMAGE, "average"],
    }.items():
        for flag, order in ((Flag[f"FIRST_IN_{counter}"], 1), (Flag[f"LAST_IN_{counter}"], -1)):
            met: set[tuple[int, ...]] = set()
            for readout in head[::order]:
                key = tuple(int(readout[name]) for name in names)
                assert bool(readout["flags"] & np.uint64(flag.mask)) == (key not in met)
                met.add(key)


# ---- inversion times that follow the heart ----


def test_look_locker_against_bloch_pulse_by_pulse() -> None:
    shots, lines, heart = np.array([0.6, 1.65, 2.58, 3.6, 4.63, 8.7, 9.6, 10.7]), 20, TISSUES["heart"]
    times = inversion_times(shots, lines=lines)
    np.testing.assert_allclose(times[[0, 5]], (0.12, 0.2), atol=1e-12)
    np.testing.assert_allclose(np.diff(times[:5]), np.diff(shots[:5]), atol=1e-12)
    flip, tr = np.deg2rad(MOLLI.flip_deg), MOLLI.tr_ms
    now, m, seen = -1e8, np.array([0.0, 0.0, 1.0]), []

    def turned(angle: float) -> NDArray[np.float64]:
        c, s = np.cos(angle), np.sin(angle)
        return np.array([[1, 0, 0], [0, c, s], [0, -s, c]])

    def relaxed(m: NDArray[np.float64], ms: float) -> NDArray[np.float64]:
        e1, e2 = np.exp(-ms / heart.t1_ms), np.exp(-ms / heart.t2_ms)
        return m * [e2, e2, e1] + [0, 0, 1 - e1]

    for i, start in enumerate(1000 * shots):
        if i in (0, 5):
            inverted = start + lines // 2 * tr - 1000 * times[i]
            m, now = relaxed(m, inverted - now) * [0, 0, -1], inverted
        m = relaxed(m, start - tr / 2 - now) * [0, 0, 1]
        m = relaxed(turned(-flip / 2) @ m, tr / 2)
        for pulse in range(lines):
            sign = 1 if pulse % 2 == 0 else -1
            m = turned(sign * flip) @ m
            if pulse == lines // 2:
                seen.append(sign * heart.density * relaxed(m, MOLLI.te_ms)[1])
            m = relaxed(m, tr)
        m, now = m * [0, 0, 1], start + lines * tr
    found = [_look_locker(heart, shots_s=shots, lines=lines, shot=i) for i in range(8)]
    np.testing.assert_allclose(found, seen, rtol=1e-9, atol=1e-12)
    assert found[0].real < 0 < found[7].real


def test_every_shot_carries_its_own_inversion_time() -> None:
    scan = small("heart-molli")
    head, found = scan.scan.readouts[-1].head, images(scan)
    times = [float(found[Counters(set=i)].attributes["InversionTime"]) for i in range(8)]
    starts = [int(head["acquisition_time_stamp"][head["set"] == i][0]) for i in range(8)]
    np.testing.assert_allclose(np.diff(times[:5]), 2.5 * np.diff(starts[:5]), rtol=0, atol=2.6)  # clock of 2.5 ms
    assert (times[0], times[5]) == (120.0, 200.0)
    assert all(found[Counters(set=i)].user_int[7] == round(1000 * times[i]) for i in range(8))
    delays = head["physiology_time_stamp"][:, 0] * 0.0025
    assert delays.min() == pytest.approx(0.58, abs=0.0026)
    ecg = np.concatenate([block.samples for block in scan.scan.waveforms], axis=1)
    waves = scan.scan.waveforms[0].time_stamp + np.flatnonzero(ecg[2])
    later = [start for start in starts if start > waves[0]]
    since = [start - waves[waves <= start][-1] for start in later]
    assert len(later) == 7  # the wave before the first shot came before the measurement
    np.testing.assert_allclose(since, 0.58 / 0.0025, rtol=0, atol=2)


# ---- velocities ----


def transformed(scan: SimulatedScan, counters: Counters) -> NDArray[np.complex128]:
    readouts, n = scan.scan.readouts[-1], scan.scan.header.encodings[0].recon.matrix[1]
    head = readouts.head
    rows = np.flatnonzero((head["set"] == counters.set) & (head["phase"] == counters.phase))
    grid = np.zeros((4, n, 2 * n), np.complex128)
    grid[:, head["kspace_encode_step_1"][rows]] = readouts.samples[rows].transpose(1, 0, 2)
    axes = (1, 2)
    whole = np.fft.fftshift(np.fft.ifftn(np.fft.ifftshift(grid, axes=axes), axes=axes), axes=axes)
    return whole[..., n // 2 : n // 2 + n]


def test_phase_differences_survive_the_combination_of_coils() -> None:
    scan = small("carotid-pc", noise=0.0, matrix=64)
    found = images(scan, output="complex")
    for phase in (0, 2):
        still, moving = (transformed(scan, Counters(phase=phase, set=i)) for i in range(2))
        exact = np.sum(still.conj() * moving, axis=0)
        ours = (found[Counters(phase=phase, set=0)].pixels.conj() * found[Counters(phase=phase, set=1)].pixels)[0, 0]
        bright = np.abs(exact) > 0.05 * np.abs(exact).max()
        # Both sets have their own coil maps, whose phases differ where vessels share a block with other tissue.
        off = np.abs(np.angle(ours * exact.conj()))[bright]
        assert np.median(off) < 0.01
        assert np.percentile(off, 99) < 0.1


def test_blood_shows_its_direction_and_tissue_rests() -> None:
    scan = small("carotid-pc", noise=0.0, matrix=64)
    still, moving = (transformed(scan, Counters(phase=2, set=i)) for i in range(2))
    angle = np.angle(np.sum(still.conj() * moving, axis=0))
    head, spacing = scan.scan.readouts[-1].head[0], 180 / 64

    def at(*place: float) -> float:
        x, y = ((np.array(place) - head["position"]) @ head[axis] / spacing for axis in ("read_dir", "phase_dir"))
        return float(angle[32 + round(float(y)), 32 + round(float(x))])

    # Right internal carotid towards the head, right jugular towards the feet, muscle at the back at rest.
    assert at(-33, -4, 33) > 0.5
    assert at(-44, 6, 33) < -0.1
    assert abs(at(-30, 40, 33)) < 0.05


def test_the_pulse_wave_keeps_the_mean() -> None:
    assert np.mean([pulse_wave(phase) for phase in range(FLOW_PHASES)]) == pytest.approx(1, rel=1e-12)


# ---- agents ----


def test_agents_arrive_after_the_injection() -> None:
    curves, brain = breast_curves(120.0), brain_curves(60.0)
    assert concentration(curves, "tumour", 15.0) == 0
    assert concentration(curves, "tumour", 100.0) > 3 * concentration(curves, "gland", 100.0) > 0
    assert concentration(curves, "cyst", 100.0) == 0
    flow = PERFUSIONS["grey matter"]
    assert brain["grey matter"].sum() * STEP_S == pytest.approx(
        flow.volume / 100 * brain["blood"].sum() * STEP_S, rel=1e-3
    )


def test_the_tumour_brightens_and_the_brain_darkens() -> None:
    breast = simulate("breast-dce", seed=1, matrix=32, coils=2, noise=0.0, repetitions=20)
    place = next(region for region in BREAST if region.name == "tumour").center_mm
    spacing = 136 / 32
    z, y, x = 10 // 2 + round(place[2] / 13.6), 16 + round(place[1] / spacing), 16 + round(place[0] / spacing)
    course = [truth.pixels[z, y, x] for truth in breast.truth]
    assert course[-1] > 1.4 * course[0]
    brain = simulate("brain-dsc", seed=1, matrix=32, coils=2, noise=0.0, repetitions=24)
    means = [truth.pixels[truth.mask].mean() for truth in brain.truth if truth.counters.slice == 1]
    assert min(means) < 0.95 * means[0]
    assert means[-1] > min(means)


# ---- what a user may choose ----


@pytest.mark.parametrize(("name", "coils", "sigma"), [("brain-dwi", 64, 2**-0.5), ("brain-ir", 12, 1.0)])
def test_the_stated_snr_is_the_images(name: str, coils: int, sigma: float) -> None:
    """`sigma` is the noise of an image whose samples have 1: two averages halve its variance."""
    scan, clean = (simulate(name, matrix=24, coils=coils, noise=noise) for noise in (Snr(20.0), 0.0))
    assert scan.scan.header.coils == coils
    first = scan.truth[0]
    assert first.pixels[first.mask].mean() / sigma == pytest.approx(20.0, rel=1e-5)  # pixels are float32
    image, still = (one.scan.readouts[-1].samples for one in (scan, clean))
    power = np.trace(scan.noise_covariance).real
    # The mean power of what was added is the covariance's; its error is that of so many squares, shared by the coils.
    bound = 5 * coils**0.5 / np.sqrt(image.size)
    assert np.mean(np.abs(image - still) ** 2) * coils == pytest.approx(power, rel=bound)


def test_an_impossible_snr_is_refused() -> None:
    for value in (0.0, -3.0, float("nan"), 1e6):
        with pytest.raises(RecipeError, match=r"snr is .*, expected above 0 and up to 100000: choose"):
            Snr(value)


# ---- what pixels mean ----


def inner(scan: SimulatedScan, regions: tuple[Region, ...], name: str, *, slice_: int = 0) -> NDArray[np.bool_]:
    """Pixels [y, x] of the region `name` whose neighbours up to three away are of it too."""
    head = scan.scan.readouts[-1].head
    head = head[head["slice"] == slice_][0]
    space = scan.scan.header.encodings[0].recon
    n, step = space.matrix[1], space.spacing_mm[1]
    y, x = ((i - n // 2) * step for i in np.indices((n, n)))
    read, phase = (head[axis].astype(np.float64) for axis in ("read_dir", "phase_dir"))
    found = labels(regions, head["position"] + x[..., None] * read + y[..., None] * phase)
    same = found == [region.name for region in regions].index(name)
    moves = [(a, b) for a in range(-3, 4) for b in range(-3, 4)]
    return np.logical_and.reduce([np.roll(same, move, axis=(0, 1)) for move in moves])


PIXELS = {
    "diffusion of white matter": (
        "brain-dwi",
        (VESSELS, "white matter"),
        (Counters(set=4), Counters()),
        np.exp(-1000 * TISSUES["white matter"].adc_mm2_s),
    ),
    "T2* of the liver": (
        "abdomen-multiecho",
        (ABDOMEN, "liver"),
        (Counters(slice=1, contrast=5), Counters(slice=1)),
        np.exp(-7.0 / TISSUES["liver"].t2_star_ms),
    ),
    "inversion of white matter": (
        "brain-ir",
        (VESSELS, "white matter"),
        (Counters(contrast=1), Counters(contrast=5)),
        abs(inversion_recovery(TISSUES["white matter"], INVERSION, 150.0))
        / abs(inversion_recovery(TISSUES["white matter"], INVERSION, 3000.0)),
    ),
}


@pytest.mark.parametrize("what", PIXELS)
def test_pixels_inside_a_tissue_have_its_signal(what: str) -> None:
    name, (regions, region), (one, other), expected = PIXELS[what]
    scan = small(name, noise=0.0, matrix=64)
    pixels = {truth.counters: truth.pixels[0] for truth in scan.truth}
    inside = inner(scan, regions, region, slice_=one.slice)
    assert np.count_nonzero(inside) > 20
    # Three pixels from an edge it rings by 1 / (3π²) = 3.4 % of its height at most, to either side: the mean by less.
    assert pixels[one][inside].mean() / pixels[other][inside].mean() == pytest.approx(expected, rel=0.034)
