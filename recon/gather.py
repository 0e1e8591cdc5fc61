"""The readouts of one frame as k-space: a view of samples that lie in order, otherwise a scatter into zeros."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from recon.assemble import SEPARATE, is_calibration, is_imaging, shares, space_of
from recon.errors import ScanError
from recon.lines import STEP_1, STEP_2, Lines, is_cartesian, lines_of, step_limits
from recon.mrd import trajectory as wire_trajectory
from recon.multiband import bands_of, calibration_space, place
from recon.scan import (
    COUNTERS,
    Counters,
    Encoding,
    Flag,
    Frame,
    Geometry,
    Readouts,
    ScanHeader,
    Vector3,
    vector3,
)

NEAR = 16  # lines from the centre of k-space, that other frames give to calibrate with: all that any method uses
APART_MM = 0.5  # how far a slice's calibration may lie from where the header puts it
NO_DENSITY = "the trajectory's density is zero everywhere: samples are weighted by where they lie"
Index = NDArray[np.int64]
Samples = NDArray[np.complex64]


def select(runs: Sequence[Readouts], rows: Index) -> list[Readouts]:
    """The readouts with ascending global numbers `rows` from the `runs` of a scan: views where evenly spaced."""
    ends = np.cumsum([len(run.head) for run in runs])
    found: list[Readouts] = []
    for run, end in zip(runs, ends.tolist(), strict=True):
        start = end - len(run.head)
        inside = rows[np.searchsorted(rows, start) : np.searchsorted(rows, end)] - start
        if len(inside):
            found.append(_take(run, _as_slice(inside)))
    return found


def _as_slice(places: Index) -> slice | Index:
    step = int(places[1] - places[0]) if len(places) > 1 else 1
    even = (np.diff(places) == step).all()
    return slice(int(places[0]), int(places[-1]) + 1, step) if even else places


def _take(run: Readouts, places: slice | Index) -> Readouts:
    path = None if run.trajectory is None else run.trajectory[places]
    return Readouts(run.head[places], run.samples[places], path)


def gather(
    header: ScanHeader,
    readouts: Sequence[Readouts],
    *,
    trajectory_unit: str = "cycles/voxel",
    calibration: bool = False,
    own: Counters | None = None,
) -> Frame:
    """The frame that `readouts` make: exactly its own, as runs in the order of arrival.

    Where frames calibrate each other (`recon.assemble.shares`), those of the frames next to it in time are among them,
    which the name of its `own` tells apart.

    Lines that serve only the calibration of parallel imaging are left out unless `calibration` asks for them.
    Cartesian k-space is zero where nothing was measured; lines measured several times (averages) are their mean. The
    k-space of a complete frame in natural order is a view of the samples. Raises ScanError.
    """
    encoding = header.encodings[space_of(readouts)]
    if calibration and own is not None and shares(encoding):
        return _with_neighbours(encoding, readouts, own)
    if calibration and encoding.multiband is not None:
        return _with_slices(header, encoding, readouts)
    if calibration and is_cartesian(encoding) and encoding.calibration_mode in SEPARATE:
        return _with_reference(encoding, readouts)
    if calibration and encoding.calibration_mode in SEPARATE:
        return _with_echoes(header, encoding, readouts, unit=trajectory_unit)
    if not calibration:
        readouts = _imaging(readouts)
    heads = _Heads.of(readouts)
    if is_cartesian(encoding):
        return _grid(encoding, heads, readouts)
    return _shots(encoding, heads, readouts, unit=trajectory_unit)


def choose_rows(readouts: Sequence[Readouts], kept: NDArray[np.bool_]) -> list[Readouts]:
    """Those of `readouts` that `kept` [readout], over all runs, says."""
    ends = np.cumsum([len(run.head) for run in readouts])
    return list(_chosen(readouts, np.split(kept, ends[:-1])))


def _imaging(readouts: Sequence[Readouts]) -> Sequence[Readouts]:
    return _chosen(readouts, [is_imaging(run.head["flags"]) for run in readouts])


def _chosen(readouts: Sequence[Readouts], kept: Sequence[NDArray[np.bool_]]) -> Sequence[Readouts]:
    if all(mask.all() for mask in kept):
        return readouts
    places = [np.flatnonzero(mask) for mask in kept]
    return [_take(run, _as_slice(rows)) for run, rows in zip(readouts, places, strict=True) if len(rows)]


def _with_reference(encoding: Encoding, readouts: Sequence[Readouts]) -> Frame:
    """The frame of the imaging lines, with those that only calibrate as its reference where they fit its grid."""
    imaging = _imaging(readouts)
    frame = _grid(encoding, _Heads.of(imaging), imaging)
    apart = _chosen(readouts, [is_calibration(run.head["flags"]) for run in readouts])
    if not apart:
        return frame
    samples = {run.samples.shape[2] for run in apart}
    wanted = imaging[0].samples.shape[2]
    lines, heads = lines_of(encoding), None if samples != {wanted} else _Heads.of(apart)
    if heads is None or _outside(lines, heads.counters):
        found = f"have {sorted(samples)} samples" if heads is None else "have counters outside the header's limits"
        warning = (
            f"the separate calibration lines {found}, the image's readouts have {wanted} samples and the"
            " header's limits: they are not used"
        )
        return replace(frame, warnings=(*frame.warnings, warning))
    return replace(frame, reference=_grid(encoding, heads, apart))


def _with_neighbours(encoding: Encoding, readouts: Sequence[Readouts], own: Counters) -> Frame:
    """The frame of its `own` lines, its reference the lines near the centre of k-space of all that `readouts` hold.

    Lines that only calibrate came with the frame itself, which then has no neighbours: they are lines of its grid.
    """

    def belongs(run: Readouts) -> NDArray[np.bool_]:
        same: NDArray[np.bool_] = (run.head["repetition"] == own.repetition) & (run.head["phase"] == own.phase)
        return same

    mine = _chosen(readouts, [belongs(run) for run in readouts])
    frame = _grid(encoding, _Heads.of(mine), mine)
    if mine is readouts:
        return frame
    near = _chosen(readouts, [_near_centre(encoding, run) for run in readouts])
    return replace(frame, reference=_grid(encoding, _Heads.of(near), near)) if near else frame


def _near_centre(encoding: Encoding, run: Readouts) -> NDArray[np.bool_]:
    places = _places(encoding, _Heads.of([run]))
    nz, ny, _ = encoding.encoded.matrix
    near: NDArray[np.bool_] = (abs(places.z - nz // 2) <= NEAR) & (abs(places.y - ny // 2) <= NEAR)
    return near


def _with_slices(header: ScanHeader, encoding: Encoding, readouts: Sequence[Readouts]) -> Frame:
    """The frame of slices excited together, its reference their k-space one by one: [coil, slice, ky, kx]."""
    imaging = _imaging(readouts)
    frame = _grid(encoding, _Heads.of(imaging), imaging)
    bands = bands_of(encoding, frame.counters.slice)
    calibrating = header.encodings[calibration_space(header, encoding)]
    apart = [_chosen(readouts, [_of_slice(run, number) for run in readouts]) for number in bands.slices]
    if not all(apart):
        return frame
    slices = [_grid(calibrating, _Heads.of(runs), runs) for runs in apart]
    for one, number, offset_mm in zip(slices, bands.slices, bands.offsets_mm, strict=True):
        _check_place(one.geometry, place(frame.geometry, offset_mm), number)
    kspace = np.concatenate([one.kspace for one in slices], axis=1)
    sampled = np.concatenate([_known(one.sampled) for one in slices])
    return replace(frame, reference=replace(slices[0], kspace=kspace, sampled=sampled))


def _of_slice(run: Readouts, number: int) -> NDArray[np.bool_]:
    chosen: NDArray[np.bool_] = is_calibration(run.head["flags"]) & (run.head["slice"] == number)
    return chosen


def _known(sampled: NDArray[np.bool_] | None) -> NDArray[np.bool_]:
    assert sampled is not None
    return sampled


def _check_place(found: Geometry, expected: Geometry, number: int) -> None:
    apart = np.linalg.norm(np.subtract(found.position_mm, expected.position_mm))
    if apart > APART_MM:
        at, wanted = ("(" + ", ".join(f"{p:.1f}" for p in one.position_mm) + ")" for one in (found, expected))
        raise ScanError(
            f"the calibration of slice {number} lies at {at} mm, its group's position and the header's spacing (dZ) put"
            f" the slice at {wanted} mm: correct one of them"
        )


def _with_echoes(header: ScanHeader, encoding: Encoding, readouts: Sequence[Readouts], *, unit: str) -> Frame:
    """The frame of the imaging shots, with those that only calibrate as its echoes, by contrast."""
    imaging = _imaging(readouts)
    frame = _shots(encoding, _Heads.of(imaging), imaging, unit=unit)
    apart = _chosen(readouts, [is_calibration(run.head["flags"]) for run in readouts])
    contrasts = sorted({int(contrast) for run in apart for contrast in np.unique(run.head["contrast"])})
    echoes = []
    for contrast in contrasts:
        part = _chosen(apart, [run.head["contrast"] == contrast for run in apart])
        echo = _shots(encoding, _Heads.of(part), part, unit=unit)
        te_ms = header.te_ms[contrast] if contrast < len(header.te_ms) else 0.0
        echoes.append(replace(echo, te_ms=te_ms))
    return replace(frame, echoes=tuple(echoes))


def _outside(lines: Lines, counters: Index) -> bool:
    """Whether the steps among `counters` [readout, counter] leave the grid."""
    steps = [STEP_1, STEP_2]
    return bool(((counters < lines.low) | (counters > lines.high))[:, steps].any())


@dataclass(frozen=True, slots=True, eq=False)
class _Heads:
    """What gathering needs of the heads of a frame, as one array per field over all runs."""

    counters: Index  # [readout, counter]
    reverse: NDArray[np.bool_]
    samples: int
    pre: Index
    post: Index
    center: Index

    @staticmethod
    def of(readouts: Sequence[Readouts]) -> _Heads:
        def column(name: str) -> Index:
            return np.concatenate([run.head[name] for run in readouts]).astype(np.int64)

        reverse = (column("flags") & Flag.IS_REVERSE.mask) != 0
        # A reversed line is turned round, and what was to be discarded first comes last.
        pre, post, center = column("discard_pre"), column("discard_post"), column("center_sample")
        samples = readouts[0].samples.shape[2]
        return _Heads(
            counters=np.stack([column(name) for name in COUNTERS], axis=1),
            reverse=reverse,
            samples=samples,
            pre=np.where(reverse, post, pre),
            post=np.where(reverse, pre, post),
            center=np.where(reverse, samples - 1 - center, center),
        )


# --- Cartesian -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class _Places:
    """Where each readout of a Cartesian frame goes: `z`, `y` [readout], and `x`, the index of its first kept sample."""

    z: Index
    y: Index
    x: Index
    kept: Index


def _grid(encoding: Encoding, heads: _Heads, readouts: Sequence[Readouts]) -> Frame:
    places = _places(encoding, heads)
    nz, ny, _ = encoding.encoded.matrix
    sampled = np.zeros((nz, ny), np.bool_)
    sampled[places.z, places.y] = True
    kspace = _view(encoding, heads, places, readouts)
    if kspace is None:
        kspace = _scatter(encoding, heads, places, readouts)
    frame = _framed(readouts, encoding, kspace, sampled=sampled)
    return replace(frame, averages=len(places.z) / int(np.count_nonzero(sampled)))


def _places(encoding: Encoding, heads: _Heads) -> _Places:
    nz, ny, nx = encoding.encoded.matrix
    step_1, step_2 = step_limits(encoding)
    kept = heads.samples - heads.pre - heads.post
    return _Places(
        z=heads.counters[:, 1] + _offset(nz, step_2.center, low=step_2.minimum, high=step_2.maximum),
        y=heads.counters[:, 0] + _offset(ny, step_1.center, low=step_1.minimum, high=step_1.maximum),
        x=np.clip(nx // 2 - (heads.center - heads.pre), 0, nx - kept),
        kept=kept,
    )


def _offset(size: int, center: int, *, low: int, high: int) -> int:
    """What to add to a counter so that `center` falls on ⌊size/2⌋.

    Where that would leave the grid the centre cannot be meant (senders leave it 0): the range is moved inside.
    """
    return min(max(size // 2 - center, -low), size - 1 - high)


def _view(encoding: Encoding, heads: _Heads, places: _Places, readouts: Sequence[Readouts]) -> Samples | None:
    """The samples as [coil, kz, ky, kx] without a copy, or None where they are not one full grid in natural order."""
    nz, ny, nx = encoding.encoded.matrix
    if len(readouts) > 1 or len(places.z) != nz * ny or heads.reverse.any() or (places.kept != nx).any():
        return None
    pre = int(heads.pre[0])
    if (heads.pre != pre).any():
        return None
    samples = readouts[0].samples[:, :, pre : pre + nx]
    coils = samples.shape[1]
    line = places.z * ny + places.y
    if (line == np.arange(nz * ny)).all():
        return samples.reshape(nz, ny, coils, nx).transpose(2, 0, 1, 3)
    if (line.reshape(ny, nz).T.ravel() == np.arange(nz * ny)).all():  # step 2 runs fastest
        return samples.reshape(ny, nz, coils, nx).transpose(2, 1, 0, 3)
    return None


def _scatter(encoding: Encoding, heads: _Heads, places: _Places, readouts: Sequence[Readouts]) -> Samples:
    nz, ny, nx = encoding.encoded.matrix
    grid = np.zeros((nz, ny, readouts[0].samples.shape[1], nx), np.complex64)  # lines are copied whole: coil next to x
    line = places.z * ny + places.y
    turn = _occurrence(line)
    start = 0
    for run in readouts:
        stop = start + len(run.head)
        for part in _equal_parts(heads, places, turn, start=start, stop=stop):
            _put(grid, run.samples[_as_slice(part - start)], part, heads=heads, places=places, add=bool(turn[part[0]]))
        start = stop
    counts = np.bincount(line, minlength=nz * ny).reshape(nz, ny)
    repeated = counts > 1
    if repeated.any():
        grid[repeated] /= counts[repeated, None, None].astype(np.float32)
    return grid.transpose(2, 0, 1, 3)


def _occurrence(line: Index) -> Index:
    """How many times the same line came before, for each readout."""
    order = np.argsort(line, kind="stable")
    ordered = line[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    turn = np.empty_like(line)
    turn[order] = np.arange(len(line)) - np.repeat(starts, np.diff(np.r_[starts, len(line)]))
    return turn


def _equal_parts(heads: _Heads, places: _Places, turn: Index, *, start: int, stop: int) -> Iterator[Index]:
    """Readouts of one run that lie alike along x and of which no two are the same line."""
    keys = np.stack([turn, heads.pre, places.x, places.kept, heads.reverse], axis=1)[start:stop]
    if (keys == keys[0]).all():
        yield np.arange(start, stop)
        return
    _, group = np.unique(keys, axis=0, return_inverse=True)
    for number in range(int(group.max()) + 1):  # in ascending order of `turn`: the first one stores, later ones add
        yield np.flatnonzero(group.ravel() == number) + start


def _put(grid: Samples, samples: Samples, part: Index, *, heads: _Heads, places: _Places, add: bool) -> None:
    first = part[0]
    if heads.reverse[first]:
        samples = samples[..., ::-1]
    pre, x, kept = int(heads.pre[first]), int(places.x[first]), int(places.kept[first])
    lines = (*_lines(places.z[part], places.y[part]), slice(None))
    samples = samples[..., pre : pre + kept]
    if add:
        grid[(*lines, slice(x, x + kept))] += samples
    elif samples.strides[-1] == 8:  # as bytes: NumPy copies complex values that are unaligned far slower
        grid.view(np.uint8)[(*lines, slice(8 * x, 8 * (x + kept)))] = samples.view(np.uint8)
    else:
        grid[(*lines, slice(x, x + kept))] = samples


def _lines(z: Index, y: Index) -> tuple[int, slice] | tuple[Index, Index]:
    """The grid's lines as a slice where they are evenly spaced in one partition."""
    step = int(y[1] - y[0]) if len(y) > 1 else 1
    if step > 0 and (z == z[0]).all() and (np.diff(y) == step).all():
        return int(z[0]), slice(int(y[0]), int(y[-1]) + 1, step)
    return z, y


# --- non-Cartesian ---------------------------------------------------------------------------------------------------


def _shots(encoding: Encoding, heads: _Heads, readouts: Sequence[Readouts], *, unit: str) -> Frame:
    pre, post = int(heads.pre[0]), int(heads.post[0])
    if (heads.pre != pre).any() or (heads.post != post).any():
        raise ScanError(
            "the readouts of a non-Cartesian frame discard different numbers of samples, expected equal discard_pre"
            " and discard_post: send equal readouts"
        )
    kept = slice(pre, heads.samples - post)
    samples = readouts[0].samples if len(readouts) == 1 else np.concatenate([run.samples for run in readouts])
    points, density = _path(encoding, heads, readouts, kept=kept, unit=unit)
    kspace = samples[..., kept].transpose(1, 0, 2)
    frame = _framed(readouts, encoding, kspace)
    if density is not None and not density.any():
        return replace(frame, trajectory=points, warnings=(*frame.warnings, NO_DENSITY))
    return replace(frame, trajectory=points, density=density)


def _path(
    encoding: Encoding, heads: _Heads, readouts: Sequence[Readouts], *, kept: slice, unit: str
) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
    """Points [shot, sample, axis] in radians per encoded voxel, and density [shot, sample] where it came along."""
    parts = [run.trajectory for run in readouts if run.trajectory is not None]
    if len(parts) < len(readouts):
        raise ScanError(
            f"the readouts carry no trajectory, a {encoding.trajectory} scan needs one: send it with every readout"
        )
    path = (parts[0] if len(parts) == 1 else np.concatenate(parts))[:, kept]
    volume = encoding.encoded.matrix[0] > 1
    stacked = volume and path.shape[-1] == 2
    axes = 3 if volume and not stacked else 2
    points, density = wire_trajectory.radians(path, axes=axes, space=encoding.encoded, unit=unit)
    if stacked:
        points = np.concatenate([_partitions(encoding, heads, points), points], axis=-1)
    return points, density


def _partitions(encoding: Encoding, heads: _Heads, points: NDArray[np.float32]) -> NDArray[np.float32]:
    """kz [shot, sample, 1] of a stack: in-plane trajectories repeated on the partitions that step 2 counts."""
    nz = encoding.encoded.matrix[0]
    _, step_2 = step_limits(encoding)
    z = heads.counters[:, 1] + _offset(nz, step_2.center, low=step_2.minimum, high=step_2.maximum) - nz // 2
    kz = (2 * np.pi / nz * z).astype(np.float32)
    return np.broadcast_to(kz[:, None, None], (*points.shape[:2], 1))


# --- both ------------------------------------------------------------------------------------------------------------


def _framed(
    readouts: Sequence[Readouts], encoding: Encoding, kspace: Samples, *, sampled: NDArray[np.bool_] | None = None
) -> Frame:
    head = readouts[0].head[0]
    first, second, third = (int(t) for t in head["physiology_time_stamp"])
    return Frame(
        kspace=kspace,
        encoding=encoding,
        counters=Counters(int(head["encoding_space_ref"]), *(int(head[name]) for name in COUNTERS[3:8])),
        geometry=geometry_of(head),
        sampled=sampled,
        time_stamp=int(head["acquisition_time_stamp"]),
        physiology_time_stamp=(first, second, third),
        measurement_uid=int(head["measurement_uid"]),
        sample_time_us=float(head["sample_time_us"]),
        user_int=tuple(head["user_int"].tolist()),
        user_float=tuple(head["user_float"].tolist()),
    )


def geometry_of(head: np.void) -> Geometry:
    """Position and directions of a readout; directions that the sender left zero are those of an unrotated frame."""
    default = Geometry()
    return Geometry(
        position_mm=vector3(head["position"]),
        read_dir=_direction(head["read_dir"], default.read_dir),
        phase_dir=_direction(head["phase_dir"], default.phase_dir),
        slice_dir=_direction(head["slice_dir"], default.slice_dir),
        table_position_mm=vector3(head["patient_table_position"]),
    )


def _direction(values: NDArray[np.float32], default: Vector3) -> Vector3:
    return vector3(values) if np.any(values) else default
