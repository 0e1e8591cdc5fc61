"""From a protocol's name to a whole scan as a scanner sends it: noise, heads, header, physiology, and the truth."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from uuid import NAMESPACE_OID, uuid5

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from recon.errors import RecipeError
from recon.mrd.hdf5 import write_scan
from recon.mrd.header import parse_header, write_header
from recon.scan import TICK_S, Flag, Readouts, Scan, ScanHeader, Waveform
from recon.simulate.breathing import FREE, abdomen_radial
from recon.simulate.cartesian import GRADIENT_ECHO, SPIN_ECHO, brain_se, head_gre3d
from recon.simulate.cine import CINE, heart_cine
from recon.simulate.dynamic import DCE, DSC, brain_dsc, breast_dce
from recon.simulate.epi import ECHO_PLANAR, head_epi, head_epi_shots, head_epi_sms
from recon.simulate.free import heart_free
from recon.simulate.heads import FIRST_TICK, Heads, heads, stamp
from recon.simulate.heart import RADIAL, SPIRAL, heart_radial, heart_spiral
from recon.simulate.measurement import NOISE_BANDWIDTH, Choice, Measurement, Protocol
from recon.simulate.noise import covariance, draw, whitening
from recon.simulate.phantom import Spectrum, Vector
from recon.simulate.physiology import bellows, ecg, since_beat
from recon.simulate.realtime import REALTIME, heart_realtime
from recon.simulate.shifted import LOW_BAND, head_shift
from recon.simulate.truth import Truth, judge
from recon.simulate.volumes import SPIRAL as HEAD_SPIRAL
from recon.simulate.volumes import SPOKES, breast_stars, head_koosh, head_radial, head_spiral, head_stars
from recon.simulate.voxels import brain_voxels
from recon.simulate.weighted import (
    CONTRAST_PHASE,
    DIFFUSION,
    ECHOES,
    INVERSION,
    MOLLI,
    abdomen_multiecho,
    brain_dwi,
    brain_ir,
    carotid_pc,
    heart_molli,
)

# 131,072 noise samples know each coil's noise to 0.2 %, well below what the image's own noise does.
NOISE_READOUTS, NOISE_SAMPLES, NOISE_SAMPLE_TIME_US, NOISE_INTERVAL_S = 128, 1024, 5.0, 0.006
LARGEST_SNR = 1e5  # beyond it single precision is the noise
PAUSE_S = 0.25  # between noise scan and measurement

PROTOCOLS: Mapping[str, Protocol] = MappingProxyType(
    {
        protocol.name: protocol
        for protocol in (
            Protocol(
                "brain-se", "2-D Cartesian spin echo of the brain, 5 slices", SPIN_ECHO, Choice(1, 8, 192), brain_se
            ),
            Protocol(
                "head-gre3d", "3-D Cartesian gradient echo of the head", GRADIENT_ECHO, Choice(1, 8, 80), head_gre3d
            ),
            Protocol("heart-radial", "golden-angle radial cine of the heart", RADIAL, Choice(1, 10, 128), heart_radial),
            Protocol("heart-spiral", "real-time spirals of the heart", SPIRAL, Choice(20, 8, 96), heart_spiral),
            Protocol(
                "abdomen-multiecho", "six gradient echoes of the abdomen", ECHOES, Choice(1, 8, 128), abdomen_multiecho
            ),
            Protocol("brain-ir", "inversion recovery of the brain, six TI", INVERSION, Choice(1, 8, 128), brain_ir),
            Protocol("heart-molli", "Look-Locker of the heart, 5(3)3, triggered", MOLLI, Choice(1, 8, 96), heart_molli),
            Protocol("brain-dwi", "diffusion of the brain, shells to b = 1000", DIFFUSION, Choice(1, 8, 96), brain_dwi),
            Protocol("carotid-pc", "velocity in the carotids, cine", CONTRAST_PHASE, Choice(1, 8, 128), carotid_pc),
            Protocol("breast-dce", "3-D of the breast as an agent arrives", DCE, Choice(8, 8, 64), breast_dce),
            Protocol("brain-dsc", "first pass of an agent through the brain", DSC, Choice(24, 8, 64), brain_dsc),
            Protocol(
                "head-radial", "golden-angle radial of the head, gradients late", SPOKES, Choice(1, 8, 128), head_radial
            ),
            Protocol(
                "head-spiral",
                "spirals of the head off resonance, echoes for a field map",
                HEAD_SPIRAL,
                Choice(1, 8, 96),
                head_spiral,
            ),
            Protocol("head-stars", "stack of stars of the head", SPOKES, Choice(1, 8, 64), head_stars),
            Protocol("head-koosh", "koosh ball of spokes of the head", SPOKES, Choice(1, 8, 32), head_koosh),
            Protocol(
                "breast-stars", "stack of stars of the breast as an agent arrives", DCE, Choice(20, 8, 64), breast_stars
            ),
            Protocol(
                "head-epi", "echo-planar imaging of the head, single shots", ECHO_PLANAR, Choice(2, 8, 64), head_epi
            ),
            Protocol("head-epi-shots", "the same in four shots", ECHO_PLANAR, Choice(1, 8, 96), head_epi_shots),
            Protocol("head-epi-sms", "the same, three slices at once", ECHO_PLANAR, Choice(2, 16, 64), head_epi_sms),
            Protocol("heart-cine", "Cartesian cine of the heart, ECG beside it", CINE, Choice(1, 8, 96), heart_cine),
            Protocol(
                "heart-realtime", "every third line of the heart in turn", REALTIME, Choice(12, 8, 96), heart_realtime
            ),
            Protocol("heart-free", "golden-angle radial, beats and breathes", RADIAL, Choice(1, 8, 96), heart_free),
            Protocol("head-shift", "gradient echo in which fat moves", LOW_BAND, Choice(1, 8, 128), head_shift),
            Protocol("abdomen-radial", "golden-angle radial, free breathing", FREE, Choice(1, 8, 128), abdomen_radial),
        )
    }
)


# Of voxels, which the package asldro brings; nothing here needs it otherwise.
REALISTIC: Mapping[str, Protocol] = MappingProxyType(
    {
        "brain-voxels": Protocol(
            "brain-voxels", "a brain of voxels (needs asldro)", SPIN_ECHO, Choice(1, 8, 192), brain_voxels
        )
    }
)


@dataclass(frozen=True, slots=True, eq=False)
class SimulatedScan:
    """What a simulated scanner emits and what should come back.

    `start_s` [readout] are the readouts' times from the scan's begin, over all of `scan.readouts` in order;
    `noise_covariance` [coil, coil] is the true E[n n^H] of imaging samples, zero in a scan without noise.
    """

    protocol: Protocol
    scan: Scan
    truth: tuple[Truth, ...]
    start_s: Vector
    noise_covariance: Spectrum


@dataclass(frozen=True, slots=True)
class Snr:
    """A signal-to-noise ratio: the mean over the object in the first image, whitened and combined, over σ there."""

    value: float

    def __post_init__(self) -> None:
        if not 0 < self.value <= LARGEST_SNR:
            words = f"snr is {self.value}, expected above 0 and up to {LARGEST_SNR:g}"
            raise RecipeError(f"{words}: choose one in that range")


def simulate(
    name: str | Protocol,
    *,
    seed: int = 0,
    repetitions: int | None = None,
    coils: int | None = None,
    matrix: int | None = None,
    noise: float | Snr = 1.0,
) -> SimulatedScan:
    """The scan that a protocol, or the one called `name`, makes; the same arguments make the same bytes.

    `noise` is relative to the protocol's own; 0 leaves out the noise scan too, so that nothing is whitened. `matrix` is
    the in-plane size, for protocols with another shape along read direction. Raises RecipeError.
    """
    protocol = find(name) if isinstance(name, str) else name
    relative = 1.0 if isinstance(noise, Snr) else noise
    choice = choose(protocol, repetitions=repetitions, coils=coils, matrix=matrix, noise=relative)
    rng = np.random.default_rng([seed, zlib.crc32(protocol.name.encode())])
    for_object, for_covariance, for_noise = rng.spawn(3)
    measurement = protocol.measure(choice, for_object)
    usual = measurement.noise_std**2 * covariance(for_covariance, choice.coils)
    if isinstance(noise, Snr):
        relative = _noise_for(noise, measurement, usual)
    true = relative**2 * usual
    scan, start_s = _assemble(measurement, true, for_noise, seed=seed)
    whiten = whitening(true) if relative else None
    truth = tuple(judge(ideal, whiten) for ideal in measurement.ideals)
    return SimulatedScan(protocol, scan, truth, start_s, true)


def _noise_for(wanted: Snr, measurement: Measurement, usual: Spectrum) -> float:
    """The noise, relative to the usual covariance, that makes the first image's SNR."""
    first = measurement.ideals[0]
    seen = judge(first, whitening(usual))
    return float(seen.pixels[seen.mask].mean()) / first.sigma / wanted.value


def find(name: str) -> Protocol:
    """The protocol called `name`; raises RecipeError."""
    known = {**PROTOCOLS, **REALISTIC}
    if name not in known:
        raise RecipeError(f"no protocol is called {name!r}, expected one of {', '.join(known)}: choose one of them")
    return known[name]


def choose(
    protocol: Protocol, *, repetitions: int | None, coils: int | None, matrix: int | None, noise: float
) -> Choice:
    """The protocol's usual choice with what the user wants otherwise; raises RecipeError."""
    wanted = {"repetitions": repetitions, "coils": coils, "matrix": matrix}
    choice = replace(protocol.usual, noise=noise, **{name: n for name, n in wanted.items() if n is not None})
    ranges = {"repetitions": (1, 1000), "coils": (1, 64), "matrix": (16, 512), "noise": (0, 1000)}
    for field, (low, high) in ranges.items():
        value = getattr(choice, field)
        if not low <= value <= high:
            raise RecipeError(f"{field} is {value}, protocols take {low} to {high}: choose a value in that range")
    return choice


def save(path: str | Path, simulated: SimulatedScan) -> None:
    """Write the scan as an ISMRMRD HDF5 file."""
    write_scan(path, simulated.scan)


def _assemble(measured: Measurement, true: Spectrum, rng: Generator, *, seed: int) -> tuple[Scan, Vector]:
    noisy = bool(true.any())
    begin_s = PAUSE_S + NOISE_READOUTS * NOISE_INTERVAL_S if noisy else 0.0
    starts = [np.arange(NOISE_READOUTS if noisy else 0) * NOISE_INTERVAL_S, measured.start_s + begin_s]
    samples = _with_noise(measured.samples, true, rng) if noisy else measured.samples
    runs = [_noise_scan(measured, true, rng)] if noisy else []
    runs.append(Readouts(_stamped(measured, begin_s), samples, measured.trajectory))
    uid = 1000 + seed
    _number([run.head for run in runs], uid=uid)
    # Read back, so that the header means what a receiver finds in its XML.
    header = parse_header(write_header(_with_patient(measured.header, seed)))
    scan = Scan(header, tuple(runs), _physiology(measured, begin_s, uid=uid))
    return scan, np.concatenate(starts)


def _with_noise(samples: NDArray[np.complex64], true: Spectrum, rng: Generator) -> NDArray[np.complex64]:
    noisy = draw(rng, true, readouts=len(samples), samples=samples.shape[2])
    noisy += samples
    return noisy


def _noise_scan(measured: Measurement, true: Spectrum, rng: Generator) -> Readouts:
    """Readouts without a pulse: a wider band lets more noise in, of which the receiver's filter takes a part."""
    dwell_us = float(measured.head["sample_time_us"][0])
    seen = true * (dwell_us / NOISE_SAMPLE_TIME_US * NOISE_BANDWIDTH)
    head = heads(NOISE_READOUTS, samples=NOISE_SAMPLES, coils=len(true), sample_time_us=NOISE_SAMPLE_TIME_US)
    head["flags"] = Flag.IS_NOISE_MEASUREMENT.mask
    for name in ("position", "read_dir", "phase_dir", "slice_dir"):
        head[name] = measured.head[name][0]
    stamp(head, np.asarray(np.arange(NOISE_READOUTS) * NOISE_INTERVAL_S))
    return Readouts(head, draw(rng, seen, readouts=NOISE_READOUTS, samples=NOISE_SAMPLES))


def _stamped(measured: Measurement, begin_s: float) -> Heads:
    head, r_waves_s = measured.head.copy(), measured.r_waves_s
    since = None if r_waves_s is None else since_beat(measured.start_s, r_waves_s)
    stamp(head, measured.start_s + begin_s, since_beat_s=since)
    return head


def _number(every: Sequence[Heads], *, uid: int) -> None:
    counter = 1
    for head in every:
        head["measurement_uid"] = uid
        head["scan_counter"] = np.arange(counter, counter + len(head))
        counter += len(head)


def _physiology(measured: Measurement, begin_s: float, *, uid: int) -> tuple[Waveform, ...]:
    seconds, first_tick = float(measured.start_s[-1]), FIRST_TICK + round(begin_s / TICK_S)
    blocks: list[Waveform] = []
    if measured.r_waves_s is not None:
        blocks += ecg(measured.r_waves_s, seconds=seconds, first_tick=first_tick, measurement_uid=uid)
    if measured.breathing is not None:
        blocks += bellows(measured.breathing, seconds=seconds, first_tick=first_tick, measurement_uid=uid)
    return tuple(sorted(blocks, key=_ended))


def _ended(block: Waveform) -> float:
    """When a block is complete, s: in this order they are sent."""
    seconds: float = block.samples.shape[1] * block.sample_time_us * 1e-6
    return (block.time_stamp - FIRST_TICK) * TICK_S + seconds


def _with_patient(header: ScanHeader, seed: int) -> ScanHeader:
    return replace(
        header,
        patient={"patientName": f"Phantom^{seed}", "patientWeight_kg": "75", "patientID": f"SIM-{seed:04d}"},
        study={"studyDate": "2024-01-01", "studyTime": "10:00:00", "studyID": str(seed)},
        study_uid=_uid(f"study {seed}"),
        frame_of_reference_uid=_uid(f"frame {seed}"),
    )


def _uid(name: str) -> str:
    # The DICOM form of a UUID; derived from the name, so the same scan has the same identity every time.
    return f"2.25.{uuid5(NAMESPACE_OID, f'recon-cluster simulated {name}').int}"
