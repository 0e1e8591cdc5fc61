"""From readouts to frames: which readouts make which image, decided from their heads alone and as early as possible."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from math import prod

import numpy as np
from numpy.typing import NDArray

from recon.errors import ScanError
from recon.lines import ANY, AVERAGE, STEP_2, Lines, completeness, is_cartesian, lines_of
from recon.multiband import bands_of, calibration_space
from recon.scan import COUNTERS, READOUT_HEAD, Counters, Encoding, Flag, Readouts, ScanHeader, Trajectory
from recon.trapezoid import trapezoid_of

Rows = NDArray[np.int64]
Mask = NDArray[np.bool_]


def _mask(*flags: Flag) -> np.uint64:
    return np.uint64(sum(flag.mask for flag in flags))


NOISE = _mask(Flag.IS_NOISE_MEASUREMENT)
CALIBRATION = _mask(Flag.IS_PARALLEL_CALIBRATION)
CALIBRATION_AND_IMAGING = _mask(Flag.IS_PARALLEL_CALIBRATION_AND_IMAGING)
NEVER_IMAGING = _mask(
    Flag.IS_NOISE_MEASUREMENT,
    Flag.IS_NAVIGATION_DATA,
    Flag.IS_PHASECORR_DATA,
    Flag.IS_HPFEEDBACK_DATA,
    Flag.IS_DUMMYSCAN_DATA,
    Flag.IS_RTFEEDBACK_DATA,
    Flag.IS_SURFACECOILCORRECTIONSCAN_DATA,
    Flag.IS_PHASE_STABILIZATION_REFERENCE,
    Flag.IS_PHASE_STABILIZATION,
)
NAVIGATOR = _mask(Flag.IS_PHASECORR_DATA, Flag.IS_NAVIGATION_DATA)  # of echo-planar lines
# The flags that end a frame; LAST_IN_PHASE and the like do not say which other frames go on, and some sequences set
# LAST_IN_SLICE on every partition of a volume.
ENDS_VOLUME = _mask(Flag.LAST_IN_REPETITION, Flag.LAST_IN_MEASUREMENT)
ENDS_SLICE = ENDS_VOLUME | _mask(Flag.LAST_IN_SLICE)
ENDS_ALL = _mask(Flag.LAST_IN_MEASUREMENT)  # no other flag says that frames joined over counters all have ended


def _offset(name: str) -> int:
    assert READOUT_HEAD.fields is not None
    return int(READOUT_HEAD.fields[name][1])


SEPARATE = ("separate", "external")  # calibration modes whose lines serve all later images of their slice
INTERLEAVED = "interleaved"  # the calibration mode in which frames of one series measure other lines each
EMBEDDED = ("embedded", INTERLEAVED)  # calibration modes whose lines belong to the image among which they stand


# READOUT_HEAD seen as what assembly needs, neighbouring fields as one array: four gathers for a whole run of readouts.
_FIRST = ("flags", "number_of_samples", "discard_pre", COUNTERS[0])
_VIEW: np.dtype[np.void] = np.dtype(
    {
        "names": ["flags", "sizes", "layout", "counters"],
        "formats": ["<u8", ("<u2", (3,)), ("<u2", (5,)), ("<u2", (len(COUNTERS),))],
        "offsets": [_offset(name) for name in _FIRST],
        "itemsize": READOUT_HEAD.itemsize,
    }
)
# Columns of `sizes` and `layout` side by side.
SAMPLES, _, COILS, PRE, POST, _, SPACE, AXES = range(8)
_NAMES = ("slice", "contrast", "phase", "repetition", "set")
_NAMING = [COUNTERS.index(name) for name in _NAMES]


def is_imaging(flags: NDArray[np.uint64]) -> Mask:
    """Which readouts carry image data, by their flags: calibration lines only where they serve imaging as well."""
    imaging: Mask = ((flags & NEVER_IMAGING) == 0) & ~is_calibration(flags)
    return imaging


def is_calibration(flags: NDArray[np.uint64]) -> Mask:
    """Which readouts serve only to calibrate parallel imaging: not what comes beside such lines, as navigators do."""
    only: Mask = (flags & (CALIBRATION | CALIBRATION_AND_IMAGING | NEVER_IMAGING)) == CALIBRATION
    return only


def steers(flags: NDArray[np.uint64]) -> Mask:
    """Which readouts are navigators that serve the lines of a calibration."""
    both: Mask = ((flags & NAVIGATOR) != 0) & ((flags & CALIBRATION) != 0)
    return both


def shares(encoding: Encoding) -> bool:
    """Whether frames of `encoding` are calibrated by those next to them in time, which measure the lines between."""
    accelerated = encoding.acceleration != (1, 1) and encoding.multiband is None
    return encoding.calibration_mode == INTERLEAVED and encoding.trajectory is Trajectory.CARTESIAN and accelerated


def space_of(readouts: Sequence[Readouts]) -> int:
    """The encoding space of a frame's first imaging readout; its calibration may have another."""
    for run in readouts:
        imaging = np.flatnonzero(is_imaging(run.head["flags"]))
        if len(imaging):
            return int(run.head["encoding_space_ref"][imaging[0]])
    return int(readouts[0].head["encoding_space_ref"][0])


@dataclass(frozen=True, slots=True, eq=False)
class FrameIndex:
    """One frame by reference: its `counters` and the global numbers of its readouts `rows` in the order of arrival.

    Among the rows are calibration lines, which some methods use: those embedded in the frame, which no other frame has,
    or those of a separate scan of the slice, which all later frames of it have, or those of the frames next to it in
    time. Echo-planar frames have their navigators among them, those of the calibration lines too.
    `complete` says whether all lines are there that the header promises (less the declared acceleration); `warnings`
    says in words what is wrong; `calibrated` whether lines that only calibrate are among the rows.
    """

    counters: Counters
    rows: Rows
    complete: bool = True
    warnings: tuple[str, ...] = ()
    calibrated: bool = False


@dataclass(frozen=True, slots=True)
class Grouping:
    """Which readouts make a frame, where it is not those whose counters agree.

    `ignored` naming counters tell no frames apart and count as 0; a `whole` frame measures its lines again and
    again, and ends with the scan or once another one, begun after its last readout, has all lines too. With a `window`,
    every so many readouts make a frame, the next one `stride` readouts later: frames then share readouts and are
    numbered by their repetition counter. Frames that only `joined` counters tell apart come together, as one index that
    counts 0 there and is out with the last readout of them all. Frames are `shared` with those after them in time, to
    calibrate these, where the header says that calibration is interleaved.
    """

    ignored: tuple[str, ...] = ()
    whole: bool = False
    window: int = 0
    stride: int = 0
    joined: tuple[str, ...] = ()
    shared: bool = False


BY_COUNTERS = Grouping()


@dataclass(slots=True)
class _Window:
    """The readouts that frames to come still need, and how many frames there were."""

    rows: Rows
    frames: int = 0

    def slide(self, rows: Rows, grouping: Grouping) -> Iterator[Rows]:
        """The frames that further `rows` complete; leaves what the next ones need."""
        self.rows = np.concatenate((self.rows, rows))
        while len(self.rows) >= grouping.window:
            yield self.rows[: grouping.window]
            self.rows = self.rows[grouping.stride :]
            self.frames += 1


@dataclass(slots=True)
class _Series:
    """The last frames of a series in time, at most `count`, which together have every line (doi:10.1002/mrm.20430).

    A frame is out at once, with the lines of those before it; the first ones wait until there are `count`.
    """

    count: int
    frames: list[FrameIndex] = field(default_factory=list)
    begun: bool = False

    def add(self, index: FrameIndex) -> list[FrameIndex]:
        """The frames that wait for no other now."""
        self.frames = [*self.frames, index][-self.count :]
        if len(self.frames) < self.count:
            return []
        ready = self.frames[-1:] if self.begun else self.frames
        self.begun = True
        return [self._shared(one) for one in ready]

    def rest(self) -> list[FrameIndex]:
        """The frames that waited in vain."""
        return [] if self.begun else [self._shared(one) for one in self.frames]

    def _shared(self, index: FrameIndex) -> FrameIndex:
        """A frame of the same name, which repeats its counters, could not be told from it."""
        others = [one.rows for one in self.frames if one.counters != index.counters]
        return replace(index, rows=np.sort(np.concatenate([index.rows, *others])))


@dataclass(slots=True)
class _Open:
    """A frame that still waits for readouts; its memory is bounded by what came, not by what a header claims."""

    rows: list[Rows] = field(default_factory=list)
    codes: list[Rows] = field(default_factory=list)
    count: int = 0
    seen: Mask | None = None  # [code], made only when enough readouts are there to be complete

    def add(self, rows: Rows, codes: Rows) -> None:
        self.rows.append(rows)
        self.codes.append(codes)
        self.count += len(rows)
        if self.seen is not None:
            self.seen[codes] = True

    def distinct(self) -> int:
        return int(np.count_nonzero(self.seen)) if self.seen is not None else len(np.unique(_joined(self.codes)))

    def full(self, lines: Lines) -> bool:
        """Whether all lines came that the header promises, where it says how many they are."""
        if not lines.total or self.count < lines.needed:
            return False
        return int(np.count_nonzero(self._seen(lines))) >= lines.needed

    def _seen(self, lines: Lines) -> Mask:
        if self.seen is None:
            self.seen = np.zeros(lines.total, np.bool_)
            for earlier in self.codes:
                self.seen[earlier] = True
        return self.seen

    def cut(self, codes: Rows, ends: Mask, lines: Lines) -> int:
        """After how many of the next readouts the frame is finished; 0: it is not."""
        cuts = (self._cut_by_flag(ends, lines), self._cut_by_count(codes, lines))
        return min((n for n in cuts if n), default=0)

    def _cut_by_flag(self, ends: Mask, lines: Lines) -> int:
        """A flag is believed when a quarter of the frame is there: it may end a segment or a shot as well."""
        places = np.flatnonzero(ends) + 1
        believed = places[4 * (self.count + places) >= lines.needed]
        return int(believed[0]) if len(believed) else 0

    def _cut_by_count(self, codes: Rows, lines: Lines) -> int:
        if not lines.total or self.count + len(codes) < lines.total:
            return 0
        seen = self._seen(lines)
        missing = lines.total - np.count_nonzero(seen)
        fresh = np.flatnonzero(~seen[codes])
        first = np.sort(np.unique(codes[fresh], return_index=True)[1])
        return int(fresh[first[missing - 1]]) + 1 if len(first) >= missing else 0


@dataclass(frozen=True, slots=True, eq=False)
class _Run:
    """What assembly needs of some heads, one row of each array per readout; `rows` are their global numbers."""

    flags: NDArray[np.uint64]
    counters: NDArray[np.int64]
    layout: NDArray[np.uint16]
    rows: Rows
    imaging: Mask

    def take(self, places: slice | Rows | Mask) -> _Run:
        return _Run(
            self.flags[places], self.counters[places], self.layout[places], self.rows[places], self.imaging[places]
        )


class _Fault(Exception):
    """Readout `row` contradicts the header; others before it may as well."""

    def __init__(self, row: int, words: str) -> None:
        super().__init__(words)
        self.row = row


Key = tuple[int, int, int, int, int, int]


class Assembler:
    """Sorts the readouts of one scan into frames; it sees heads only and keeps no reference to them.

    `add` takes the runs in wire order; `finish` gives what never became complete. Both raise ScanError where the
    readouts contradict the header. Readouts are numbered from 0 in wire order, whatever they are.
    """

    def __init__(self, header: ScanHeader, grouping: Grouping = BY_COUNTERS) -> None:
        self._header = header
        self._grouping = grouping
        untold = {*grouping.ignored, *grouping.joined}
        self._told = np.array([name not in untold for name in _NAMES], np.int64)  # which counters name frames
        self._coils = header.coils
        self._coils_source = "the header says"
        self._checked: NDArray[np.uint16] | None = None  # the last layout that passed: a whole scan has one or two
        self._samples: dict[int, int] = {}
        self._axes: dict[int, int] = {}
        self._lines: dict[int, Lines] = {}
        self._open: dict[Key, _Open] = {}
        self._windows: dict[Key, _Window] = {}
        self._series: dict[tuple[int, ...], _Series] = {}  # by encoding space, slice, contrast and set
        self._passes: dict[Key, int] = {}
        self._noise: list[Rows] = []
        self._embedded: dict[Key, list[Rows]] = {}
        self._separate: dict[tuple[int, int], list[Rows]] = {}  # by encoding space and slice
        self._navigators: dict[tuple[int, int], list[Rows]] = {}  # likewise
        self._planar = np.array([encoding.trajectory is Trajectory.EPI for encoding in header.encodings])
        self.readouts = 0  # how many were added
        self.imaging = 0  # how many of them belong to frames

    @property
    def noise_rows(self) -> Rows:
        """Global numbers of the noise readouts so far."""
        return _joined(self._noise)

    def add(self, head: NDArray[np.void]) -> Iterator[FrameIndex]:
        """Yields the frames that the readouts `head` [readout], dtype READOUT_HEAD, complete.

        Raises ScanError for the first bad readout, after the frames that those before it complete.
        """
        run, fault = self._good(self._seen(head))
        self.readouts += len(run.rows)
        if len(run.rows):
            yield from self._place(run)
        if fault is not None:
            raise ScanError(str(fault))

    def _seen(self, head: NDArray[np.void]) -> _Run:
        view = head.view(_VIEW)
        layout = np.concatenate((view["sizes"], view["layout"]), axis=1)
        rows = np.arange(self.readouts, self.readouts + len(head))
        flags = view["flags"]
        return _Run(flags, view["counters"].astype(np.int64), layout, rows, is_imaging(flags))

    def _good(self, run: _Run) -> tuple[_Run, _Fault | None]:
        """The readouts before the first bad one, and what is wrong with that."""
        fault: _Fault | None = None
        while len(run.rows):
            try:
                self._check(run)
            except _Fault as found:
                # A readout before it may break a rule that is checked later.
                run, fault = run.take(slice(found.row - int(run.rows[0]))), found
            else:
                break
        return run, fault

    def _check(self, run: _Run) -> None:
        """Raise _Fault where readouts contradict the header or each other."""
        alike = self._checked is not None and bool((run.layout == self._checked).all())
        if not alike:
            counted = run.take(run.imaging | is_calibration(run.flags) | ((run.flags & NOISE) != 0))
            self._check_coils(counted.layout, counted.rows)
        framed = run if run.imaging.all() else run.take(run.imaging | self._calibrates(run, EMBEDDED))
        spaces = framed.layout[:1, SPACE] if alike else np.unique(framed.layout[:, SPACE])
        for space in spaces.tolist():
            part = framed if alike else framed.take(framed.layout[:, SPACE] == space)
            if not alike:
                self._check_layout(space, part.layout, part.rows)
            _check_counters(self._lines[space], part.counters, part.rows)
        if len(framed.rows):
            self._checked = framed.layout[-1]

    def _place(self, run: _Run) -> list[FrameIndex]:
        """The frames that checked readouts complete, in the order of their last readout."""
        if not run.imaging.all():
            self._note(run)
            self._embed(run.take(self._calibrates(run, EMBEDDED) | self._steers(run, EMBEDDED)))
            self._keep(self._separate, run.take(self._calibrates(run, SEPARATE) | self._steers(run, SEPARATE)))
            self._keep(self._navigators, run.take(self._navigates(run)))
            run = run.take(run.imaging)
        self.imaging += len(run.rows)
        spaces = run.layout[:, SPACE]
        if len(spaces) and (spaces == spaces[0]).all():
            done = self._fill(int(spaces[0]), run)
        else:
            parts = ((space, run.take(spaces == space)) for space in np.unique(spaces).tolist())
            done = [index for space, part in parts for index in self._fill(space, part)]
        return self._shared(sorted(done, key=lambda index: int(index.rows[-1])))

    def _shared(self, done: list[FrameIndex]) -> list[FrameIndex]:
        """The frames that can go now, with the lines of those next to them in time where these calibrate them."""
        if not self._grouping.shared:
            return done
        return [ready for index in done for ready in self._followers(index)]

    def _followers(self, index: FrameIndex) -> list[FrameIndex]:
        """The frames that need wait no longer now that `index` is there; one with calibration lines never waits."""
        name = index.counters
        encoding = self._header.encodings[name.encoding]
        if index.calibrated or not shares(encoding):
            return [index]
        series = (name.encoding, name.slice, name.contrast, name.set)
        return self._series.setdefault(series, _Series(prod(encoding.acceleration))).add(index)

    def finish(self) -> list[FrameIndex]:
        """The frames still open, in the order of their first readout; raises ScanError where no frame was ever seen."""
        if not self.imaging:
            raise ScanError(
                f"the scan ended without an imaging readout ({self.readouts} readouts, {len(self.noise_rows)} of them"
                " noise), expected at least one: send the measurement itself"
            )
        keys = sorted(self._open, key=lambda key: int(self._open[key].rows[0][0]))
        last = self._shared([self._close(key, until=self.readouts) for key in keys])
        return self._short() + last + [index for series in self._series.values() for index in series.rest()]

    def _note(self, run: _Run) -> None:
        """Remember noise readouts."""
        wanted = (run.flags & NOISE) != 0
        if wanted.any():
            self._noise.append(run.rows[wanted])

    def _calibrates(self, run: _Run, kinds: tuple[str, ...]) -> Mask:
        """Which readouts only calibrate, in encoding spaces of one of these calibration modes."""
        modes = np.array([encoding.calibration_mode in kinds for encoding in self._header.encodings])
        chosen: Mask = is_calibration(run.flags) & self._in(modes, run)
        return chosen

    def _steers(self, run: _Run, kinds: tuple[str, ...]) -> Mask:
        """Which readouts are navigators of such lines."""
        modes = np.array([encoding.calibration_mode in kinds for encoding in self._header.encodings])
        return steers(run.flags) & self._in(modes & self._planar, run)

    def _navigates(self, run: _Run) -> Mask:
        """Which readouts are navigators of an image's own lines."""
        own: Mask = ((run.flags & NAVIGATOR) != 0) & ~steers(run.flags) & self._in(self._planar, run)
        return own

    def _in(self, chosen: Mask, run: _Run) -> Mask:
        """Which readouts are in one of the `chosen` encoding spaces [space]."""
        space = run.layout[:, SPACE]
        inside: Mask = (space < len(chosen)) & chosen[np.minimum(space, len(chosen) - 1)]
        return inside

    def _keep(self, kept: dict[tuple[int, int], list[Rows]], run: _Run) -> None:
        """Remember readouts that later frames of their encoding space and slice use."""
        names = np.column_stack((run.layout[:, SPACE].astype(np.int64), run.counters[:, COUNTERS.index("slice")]))
        for places in _equal_rows(names) if len(names) else ():
            space, slice_ = names[places[0]].tolist()
            kept.setdefault((space, slice_), []).append(run.rows[places])

    def _embed(self, run: _Run) -> None:
        """Keep calibration lines that belong to a frame until it is complete."""
        names = np.column_stack((run.layout[:, SPACE].astype(np.int64), run.counters[:, _NAMING] * self._told))
        for places in _equal_rows(names) if len(names) else ():
            key = names[places[0]].tolist()
            self._embedded.setdefault(tuple(key), []).append(run.rows[places])

    def _fill(self, space: int, run: _Run) -> list[FrameIndex]:
        """The frames that imaging readouts of one encoding space complete."""
        lines, counters, rows = self._lines[space], run.counters, run.rows
        codes = lines.code(counters)
        volume = lines.high[STEP_2] > lines.low[STEP_2] and self._header.encodings[space].multiband is None
        flag = ENDS_VOLUME if volume else ENDS_SLICE
        if self._grouping.joined:
            flag = ENDS_ALL
        ends = ((run.flags & flag) != 0) & (counters[:, AVERAGE] == lines.high[AVERAGE])
        naming = counters[:, _NAMING] * self._told
        if (naming == naming[0]).all():
            return list(self._feed((space, *naming[0].tolist()), rows, codes, ends))
        done: list[FrameIndex] = []
        # Which whole frame follows which is told by the order of readouts.
        parts = np.split(np.arange(len(naming)), _changes(naming)) if self._grouping.whole else _equal_rows(naming)
        for places in parts:
            done += self._feed((space, *naming[places[0]].tolist()), rows[places], codes[places], ends[places])
        return done

    def _feed(self, key: Key, rows: Rows, codes: Rows, ends: Mask) -> Iterator[FrameIndex]:
        if self._grouping.window:
            yield from self._slide(key, rows)
            return
        if self._grouping.whole:
            self._open.setdefault(key, _Open()).add(rows, codes)
            yield from self._followed(key)
            return
        while len(rows):
            frame = self._open.setdefault(key, _Open())
            n = frame.cut(codes, ends, self._lines[key[0]])
            taken = n or len(rows)
            frame.add(rows[:taken], codes[:taken])
            if n:
                yield self._close(key, until=int(rows[taken - 1]))
            rows, codes, ends = rows[taken:], codes[taken:], ends[taken:]

    def _followed(self, key: Key) -> Iterator[FrameIndex]:
        """The full frames that ended before the one of `key` began, once that is full itself."""
        last = {other: int(frame.rows[-1][-1]) for other, frame in self._open.items() if other != key}
        ended = [other for other, row in last.items() if row < self._open[key].rows[0][0]]
        if not ended or not self._open[key].full(self._lines[key[0]]):
            return
        for other in sorted(ended, key=last.__getitem__):
            if self._open[other].full(self._lines[other[0]]):
                yield self._close(other, until=last[other])

    def _slide(self, key: Key, rows: Rows) -> Iterator[FrameIndex]:
        window = self._windows.setdefault(key, _Window(rows[:0]))
        for taken in window.slide(rows, self._grouping):
            yield FrameIndex(_numbered(key, window.frames), taken)

    def _short(self) -> list[FrameIndex]:
        """Of series too short for one window: a frame of what there is."""
        wanted = self._grouping.window
        return [
            FrameIndex(
                _numbered(key, 0),
                window.rows,
                complete=False,
                warnings=(f"only {len(window.rows)} readouts came, a window takes {wanted}",),
            )
            for key, window in self._windows.items()
            if not window.frames
        ]

    def _close(self, key: Key, *, until: int) -> FrameIndex:
        frame = self._open.pop(key)
        complete, warnings = completeness(self._lines[key[0]], frame.distinct())
        self._passes[key] = passes = self._passes.get(key, 0) + 1
        if passes > 1:
            warnings += (
                f"the readouts repeat counters: this is image {passes} of slice {key[1]}, repetition {key[4]}",
            )
        rows = self._with_embedded(key, frame, until)
        lines = _joined([part for name in self._calibrating(key) for part in self._separate.get(name, ())])
        if len(lines):
            rows = np.sort(np.concatenate((rows, lines[lines < until])))
        calibrated = len(rows) > frame.count
        return FrameIndex(Counters(*key), self._steered(key, frame, rows, until), complete, warnings, calibrated)

    def _calibrating(self, key: Key) -> list[tuple[int, int]]:
        """The encoding spaces and slices of a separate calibration that serves the frame `key`."""
        space, slice_ = key[:2]
        encoding = self._header.encodings[space]
        if encoding.multiband is None:
            return [(space, slice_)]
        other = calibration_space(self._header, encoding)
        return [(other, one) for one in bands_of(encoding, slice_).slices]

    def _steered(self, key: Key, frame: _Open, rows: Rows, until: int) -> Rows:
        """`rows` and the navigators of the slice, from the last ones before the frame's first readout on."""
        if key[:2] not in self._navigators:
            return rows
        known = _joined(self._navigators[key[0], key[1]])
        known = known[known < until]
        before = known[known < frame.rows[0][0]]
        if len(before):
            begins = np.flatnonzero(np.diff(before, prepend=-2) > 1)[-1]
            known = known[begins:]
        return np.sort(np.concatenate((rows, known)))

    def _with_embedded(self, key: Key, frame: _Open, until: int) -> Rows:
        """The frame's rows and the calibration lines that came before row `until`."""
        rows = _joined(frame.rows)
        if key not in self._embedded:
            return rows
        waiting = _joined(self._embedded.pop(key))
        if (waiting > until).any():
            self._embedded[key] = [waiting[waiting > until]]
        return np.sort(np.concatenate((rows, waiting[waiting < until])))

    def _check_coils(self, layout: NDArray[np.uint16], rows: Rows) -> None:
        coils = layout[:, COILS]
        if self._coils is None and len(coils):
            self._coils, self._coils_source = int(coils[0]), f"readout {rows[0]} has"
        wrong = np.flatnonzero((coils != self._coils) | (coils == 0))
        if len(wrong):
            raise _Fault(
                int(rows[wrong[0]]),
                f"readout {rows[wrong[0]]} has {coils[wrong[0]]} coils, {self._coils_source} {self._coils}:"
                " send the same coils, at least one, in the whole scan",
            )

    def _check_layout(self, space: int, layout: NDArray[np.uint16], rows: Rows) -> None:
        """Sample counts and trajectories of imaging readouts of one encoding space."""
        if space >= len(self._header.encodings):
            raise _Fault(
                int(rows[0]),
                f"readout {rows[0]} refers to encoding space {space}, the header has {len(self._header.encodings)}"
                " (counted from 0): correct encoding_space_ref",
            )
        encoding = self._header.encodings[space]
        if space not in self._lines:
            self._lines[space] = lines_of(encoding, self._grouping.joined)
            self._samples[space] = int(layout[0, SAMPLES])
            if encoding.multiband is not None:  # what contradicts itself is refused at once
                bands_of(encoding, 0), calibration_space(self._header, encoding)
        _check_samples(encoding, layout, rows, expected=self._samples[space])
        if not is_cartesian(encoding):
            expected = self._axes.setdefault(space, int(layout[0, AXES]))
            _check_trajectory(encoding, layout[:, AXES], rows, expected=expected)


def _numbered(key: Key, frame: int) -> Counters:
    if frame > ANY:
        raise ScanError(
            f"the windows make more than {ANY + 1} frames, which images cannot count: choose a larger stride"
        )
    return replace(Counters(*key), repetition=frame)


def _joined(parts: list[Rows]) -> Rows:
    if len(parts) == 1:
        return parts[0]
    return np.concatenate(parts) if parts else np.zeros(0, np.int64)


def _equal_rows(table: NDArray[np.int64]) -> Iterator[Rows]:
    """Places of equal rows of `table` [place, column], ascending inside each group; a row may come in several groups.

    Frames one after another are cut where the row changes; interleaved ones are sorted first.
    """
    places = np.arange(len(table))
    starts = _changes(table)
    if len(starts) * 16 > len(table):
        places = np.lexsort(table.T[::-1])
        starts = _changes(table[places])
    yield from np.split(places, starts)


def _changes(table: NDArray[np.int64]) -> Rows:
    return np.flatnonzero((table[1:] != table[:-1]).any(axis=1)) + 1


def _check_counters(lines: Lines, counters: NDArray[np.int64], rows: Rows) -> None:
    outside = (counters < lines.low) | (counters > lines.high)
    if outside.any():
        place, which = (int(i) for i in np.argwhere(outside)[0])
        raise _Fault(
            int(rows[place]),
            f"readout {rows[place]} has {COUNTERS[which]} {counters[place, which]}, the header's limits allow"
            f" {lines.low[which]} to {lines.high[which]}: correct the counter or the limits",
        )


def _check_samples(encoding: Encoding, layout: NDArray[np.uint16], rows: Rows, *, expected: int) -> None:
    wrong = np.flatnonzero(layout[:, SAMPLES] != expected)
    if len(wrong):
        raise _Fault(
            int(rows[wrong[0]]),
            f"readout {rows[wrong[0]]} has {layout[wrong[0], SAMPLES]} samples, those before it have {expected}:"
            " send equal readouts in one encoding space",
        )
    ramps = trapezoid_of(encoding)
    if ramps is not None and expected != ramps.samples:
        raise _Fault(
            int(rows[0]),
            f"readout {rows[0]} has {expected} samples, the trajectory description says numSamples {ramps.samples}:"
            " correct the header, or leave the description out where the samples are on a grid",
        )
    largest = encoding.encoded.matrix[2] if is_cartesian(encoding) and ramps is None else ANY
    kept = expected - layout[:, PRE].astype(np.int64) - layout[:, POST]
    wrong = np.flatnonzero((kept < 1) | (kept > largest))
    if len(wrong):
        raise _Fault(
            int(rows[wrong[0]]),
            f"readout {rows[wrong[0]]} keeps {kept[wrong[0]]} samples after its discards, expected 1 to {largest}:"
            " correct discard_pre, discard_post or the encoded matrix",
        )


def _check_trajectory(encoding: Encoding, axes: NDArray[np.uint16], rows: Rows, *, expected: int) -> None:
    wrong = np.flatnonzero((axes < 2) | (axes > 4))
    if len(wrong):
        raise _Fault(
            int(rows[wrong[0]]),
            f"readout {rows[wrong[0]]} has a trajectory of {axes[wrong[0]]} axes, a {encoding.trajectory} scan needs"
            " 2 to 4 (x, y, z, density): send the trajectory with every readout",
        )
    wrong = np.flatnonzero(axes != expected)
    if len(wrong):
        raise _Fault(
            int(rows[wrong[0]]),
            f"readout {rows[wrong[0]]} has a trajectory of {axes[wrong[0]]} axes, those before it have {expected}:"
            " send one kind of trajectory in an encoding space, with its density or without",
        )
