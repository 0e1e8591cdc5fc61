"""The reconstruction on one screen: readouts → frames → whitened k-space → images."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import numpy as np

from kernels.contract import Kernels
from recon import __version__
from recon.assemble import Assembler, FrameIndex, is_calibration, space_of
from recon.batch import Asked, Made, Stages, alone, side_by_side
from recon.cache import Cache
from recon.delays import undelayed
from recon.dependency import missing
from recon.device import on_device, on_host
from recon.epi import straightened
from recon.errors import CalibrationError, RecipeError, ScanError
from recon.gather import gather, select
from recon.labels import attributes, labels_of
from recon.methods import METHODS, Workbench, choose, grouping_of, plainer, settle, unfit
from recon.methods.breathing import parted
from recon.methods.cine import gated
from recon.methods.method import refuse
from recon.methods.null import NULL
from recon.methods.off_resonance import with_field
from recon.methods.snr import by_replicas, noise_known
from recon.prepare import compressed_geometrically, compressed_together, whitening
from recon.recipe import ANALYTIC, CINE, GEOMETRIC, Recipe, breathes
from recon.scan import Calibration, Frame, Image, Material, Readouts, Scan, ScanHeader
from recon.series import frames_together


def reconstruct(scan: Scan, recipe: Recipe, kernels: Kernels, *, cache: Cache | None = None) -> Iterator[Image]:
    """The images of a whole scan, frame after frame; raises ReconError with the reason where it cannot be."""
    recipe, _ = settle(recipe, scan.header)
    if reason := unfit(recipe, scan.header):
        raise RecipeError(reason)
    indices, noise = frames_of(scan, recipe)
    unwhitened = () if noise or not recipe.parameters.get("whiten") else missing(scan.header)
    cache = Cache() if cache is None else cache
    for index in indices:
        material = Material(select(scan.readouts, index.rows), noise, scan.waveforms, index.counters)
        for image in reconstruct_material(scan.header, material, recipe, kernels, cache):
            yield replace(image, comments=index.warnings + unwhitened + image.comments)


def frames_of(scan: Scan, recipe: Recipe | None = None) -> tuple[list[FrameIndex], list[Readouts]]:
    """The frames of a scan in the order in which they are complete, and its noise readouts.

    They are those that counters name unless the `recipe` has others.
    """
    settled, _ = settle(recipe or Recipe(), scan.header)
    assembler = Assembler(scan.header, grouping_of(settled))
    indices = [index for run in scan.readouts for index in assembler.add(run.head)]
    indices += assembler.finish()
    return indices, select(scan.readouts, assembler.noise_rows)


def reconstruct_frame(
    header: ScanHeader,
    readouts: Sequence[Readouts],
    noise: Sequence[Readouts],
    recipe: Recipe,
    kernels: Kernels,
    cache: Cache,
) -> list[Image]:
    """The images of one frame from exactly its `readouts`, whitened where there is `noise`; raises ReconError."""
    return reconstruct_material(header, Material(readouts, noise), recipe, kernels, cache)


def reconstruct_material(
    header: ScanHeader, material: Material, recipe: Recipe, kernels: Kernels, cache: Cache
) -> list[Image]:
    """The same for a frame whose name need not be that of its first readout."""
    workbench = Workbench(kernels, cache)
    return alone(_checked(header, material, recipe, workbench), workbench)


def reconstruct_batch(
    frames: Sequence[tuple[ScanHeader, Material]], recipe: Recipe, kernels: Kernels, cache: Cache
) -> list[Made]:
    """What each of the `frames`, of any scans, became: its images, or the error that it alone met.

    Their methods run together where they can; what a frame is then may differ in the last bits from what it is alone.
    """
    workbench = Workbench(kernels, cache)
    return side_by_side([_checked(header, material, recipe, workbench) for header, material in frames], workbench)


def _checked(header: ScanHeader, material: Material, recipe: Recipe, workbench: Workbench) -> Stages:
    """The images of one frame, all of them finite."""
    readouts, noise = material.readouts, material.noise
    encoding = header.encodings[space_of(readouts)]
    recipe = choose(recipe, encoding, calibrated=any(is_calibration(run.head["flags"]).any() for run in readouts))
    refuse(METHODS[recipe.method].check, encoding)
    try:
        images = yield from _images(header, material, recipe, workbench)
    except FloatingPointError as error:
        raise _blame([*readouts, *noise]) from error
    if not all(np.isfinite(image.pixels).all() for image in images):
        raise _blame([*readouts, *noise])
    return [_finished(image, header) for image in images]


def _images(header: ScanHeader, material: Material, recipe: Recipe, workbench: Workbench) -> Stages:
    method = METHODS[recipe.method]
    if method is NULL:
        return []
    lines = straightened(header, material.readouts, workbench.cache)
    straight = replace(material, readouts=lines.readouts)
    if method.joint is None:
        images = yield from _single(header, straight, recipe, workbench)
    else:
        images = _joint(header, straight, recipe, workbench)
    return [
        replace(image, comments=lines.warnings + image.comments, attributes={**image.attributes, **lines.attributes})
        for image in images
    ]


def _single(header: ScanHeader, material: Material, recipe: Recipe, workbench: Workbench) -> Stages:
    """The images of one frame, or of the frames of a cine."""
    unit = str(recipe.parameters.get("trajectory_unit", "cycles/voxel"))
    method = METHODS[recipe.method]
    own = material.counters if grouping_of(recipe).shared else None
    frame = gather(header, material.readouts, trajectory_unit=unit, calibration=method.calibration, own=own)
    if material.counters is not None:
        frame = replace(frame, counters=material.counters)
    frames = _parts(header, material, frame, recipe)
    calibration = _calibration(header, material, frame, recipe, workbench)
    images: list[Image] = []
    for part in frames:
        images += yield from _device_images(part, calibration, recipe, workbench)
    return images


def _device_images(frame: Frame, calibration: Calibration, recipe: Recipe, workbench: Workbench) -> Stages:
    """The images of one frame, which goes to the device here and whose pixels come back."""
    noise_known(calibration, recipe)
    (part,), known = _prepared([frame], calibration, recipe, workbench)
    found = yield from _run(part, known, recipe)
    images = [on_host(image, workbench.kernels) for image in found]
    if recipe.parameters.get("snr", "off") in ("off", ANALYTIC):
        return images

    def make(noisy: Frame, plain: Recipe) -> Image:
        return on_host(alone(_run(noisy, known, plain), workbench)[0], workbench.kernels)

    return [*images, by_replicas(part, known, recipe, make)]


def _prepared(
    frames: list[Frame], calibration: Calibration, recipe: Recipe, workbench: Workbench
) -> tuple[list[Frame], Calibration]:
    """Frames of one slice on the device, their spokes where they were measured, with fewer coils and a field map."""
    there = [on_device(frame, workbench.kernels) for frame in frames]
    if recipe.parameters.get("delays") == "estimate":
        there = undelayed(there, workbench.kernels)
    parts, known = _compressed(there, calibration, recipe, workbench.kernels)
    return with_field(parts, known, recipe, workbench), known


def _parts(header: ScanHeader, material: Material, whole: Frame, recipe: Recipe) -> Iterable[Frame]:
    """The frames that motion makes of one, where the recipe sorts by it."""
    if recipe.method == CINE:
        return gated(header, material, whole, recipe)
    return parted(header, material, whole, recipe) if breathes(recipe) else [whole]


def _joint(header: ScanHeader, material: Material, recipe: Recipe, workbench: Workbench) -> list[Image]:
    """The images of frames that are reconstructed together."""
    method = METHODS[recipe.method]
    assert method.joint is not None
    frames = frames_together(header, material, recipe, calibration=method.calibration)
    calibration = _calibration(header, material, frames[0], recipe, workbench)
    parts, known = _prepared(frames, calibration, recipe, workbench)
    return [on_host(image, workbench.kernels) for image in method.joint(parts, known, recipe, workbench)]


def _compressed(
    frames: list[Frame], calibration: Calibration, recipe: Recipe, kernels: Kernels
) -> tuple[list[Frame], Calibration]:
    """`frames` in as many virtual coils as the recipe wants, found as it says."""
    if recipe.parameters.get("compression") == GEOMETRIC:
        return compressed_geometrically(frames, calibration, recipe["coils"], kernels)
    return compressed_together(frames, calibration, recipe["coils"])


def _calibration(
    header: ScanHeader, material: Material, frame: Frame, recipe: Recipe, workbench: Workbench
) -> Calibration:
    if not material.noise or not recipe["whiten"]:
        return Calibration()
    return _whitening(header, material.noise, frame.sample_time_us, workbench)


def _run(frame: Frame, calibration: Calibration, recipe: Recipe) -> Stages:
    """The images, or a plainer one that says why where the recipe allows it."""
    try:
        return (yield Asked(frame, calibration, recipe))
    except CalibrationError as error:
        instead = plainer(recipe)
        if instead is None:
            raise
        images = yield Asked(frame, calibration, instead)
        reason = f"{recipe.method} was not possible, this is the zero-filled image: {error}"
        return [replace(image, comments=(reason, *image.comments)) for image in images]


def _whitening(
    header: ScanHeader, noise: Sequence[Readouts], sample_time_us: float, workbench: Workbench
) -> Calibration:
    """The calibration that makes noise white, found on the host and kept on the device."""
    kernels = workbench.kernels

    def make() -> Calibration:
        made = whitening(noise, header=header, sample_time_us=sample_time_us)
        return made if made.whitening is None else replace(made, whitening=kernels.to_device(made.whitening))

    return workbench.cache.get(
        ("whitening", _fingerprint(noise), header.relative_noise_bandwidth, sample_time_us, kernels.device),
        make,
        size=lambda made: 0 if made.whitening is None else made.whitening.nbytes,
    )


def _fingerprint(noise: Sequence[Readouts]) -> str:
    """Names a noise scan by its heads and about a megabyte of its samples: noise that agrees there is the same noise.

    Hashing all of a noise scan would cost as much as a frame, for every frame.
    """
    digest = hashlib.sha256()
    step = 1 + sum(run.samples.nbytes for run in noise) // (1 << 20)
    for run in noise:
        digest.update(run.head.tobytes())
        digest.update(run.samples[:, :, ::step].tobytes())
    return digest.hexdigest()


def _blame(runs: Iterable[Readouts]) -> ScanError:
    """The error for an image that is not finite: the first bad sample, which has spread over the whole image."""
    for run in runs:
        bad = np.argwhere(~np.isfinite(run.samples))
        if len(bad):
            readout, coil, sample = (int(i) for i in bad[0])
            head, value = run.head[readout], run.samples[readout, coil, sample]
            return ScanError(
                f"the readout with scan_counter {head['scan_counter']} (slice {head['slice']}, repetition"
                f" {head['repetition']}, line {head['kspace_encode_step_1']}) holds {value} in coil {coil}, sample"
                f" {sample}, expected finite samples: measure it again"
            )
    return ScanError("the image overflows single precision although every sample is finite: scale the samples down")


def _finished(image: Image, header: ScanHeader) -> Image:
    provenance = replace(image.provenance, version=__version__)
    said = {**image.attributes, **attributes(labels_of(header, image))}
    return replace(image, attributes=said, patient_position=header.patient_position, provenance=provenance)
