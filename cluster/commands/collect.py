"""Images of scans on a server, waited for and written: what `submit` and `images` share."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from cluster.client import RemoteScan
from cluster.commands.remote import Parser, again
from cluster.events import State
from cluster.exits import status_of
from cluster.job import FailedError, ScanRecord, outcome
from cluster.saving import check
from recon.errors import FileError, LostError, ReconError


def add_out(parser: Parser, *, each: str, required: bool = False) -> None:
    """Declare where images go, one place for `each`."""
    words = f"images as .h5, .mrd, .png, or DICOM in a folder; one per {each}"
    parser.add_argument("--out", type=Path, metavar="PATH", required=required, help=words)


class Errors:
    """Says each error at once; `status` is the exit status of the first."""

    def __init__(self) -> None:
        self.status = 0

    @contextmanager
    def kept(self, name: str) -> Iterator[None]:
        """An error inside the block is said to be one of `name`, and the command goes on unless the server is lost."""
        try:
            yield
        except ReconError as error:
            self.status = self.status or status_of(error)
            if isinstance(error, LostError):
                raise
            words = str(error)
            print(words if name in words else f"{name}: {words}", file=sys.stderr)


class Leaving:
    """What goes on at the server when the command is interrupted, or loses it."""

    def __init__(self, server: str) -> None:
        self._server = server
        self._under_way: dict[str, str] = {}

    def __enter__(self) -> Leaving:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, LostError):
            print(error, file=sys.stderr)  # before what is to be done
        if isinstance(error, LostError | KeyboardInterrupt):
            for words in self._under_way.values():
                print(words, file=sys.stderr, flush=True)

    def goes_on(self, name: str, scan: str) -> None:
        """The server has all of the scan that its user calls `name`."""
        stop, fetch = again(f"cancel {scan}", self._server), again(f"images {scan} --out PATH", self._server)
        self._under_way[name] = f"{name}: scan {scan} goes on; {stop} stops it, {fetch} fetches its images"

    def comes_in(self, name: str, scan: str) -> None:
        """The server has a part of it."""
        fetch = again(f"images {scan} --out PATH", self._server)
        self._under_way[name] = f"{name}: scan {scan} was not sent to its end; {fetch} fetches the images of what came"

    def over(self, name: str) -> None:
        """Nothing of it is left to do."""
        self._under_way.pop(name, None)


def bars() -> Progress:
    """Progress on standard error, on a terminal only."""
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    return Progress(*columns, console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty())


def places(out: Path, names: Sequence[str]) -> list[Path]:
    """Where the images of each name go: with several, each has its own name in it.

    Raises FileError, before anything is done, where they cannot be written there or would replace each other.
    """
    found = [_place(out, name, several=len(names) > 1) for name in names]
    place, count = Counter(found).most_common(1)[0]
    if count > 1:
        raise FileError(f"the images of {count} scans would all go to {place}: fetch them one by one")
    for each in found:
        check(each)
    return found


def _place(out: Path, name: str, *, several: bool) -> Path:
    if not several:
        return out
    stem = Path(name).stem
    return out.with_name(f"{out.stem}-{stem}{out.suffix}") if out.suffix else out / stem


def finish(scan: RemoteScan, name: str, *, out: Path | None, progress: Progress) -> None:
    """Wait for the scan that its user calls `name`, write its images to `out` and say so.

    Raises FailedError where it is not done; the images that it has are written all the same.
    """
    record = _wait(scan, name, progress)
    placed = ""
    if out is not None and record.images:
        scan.save(out)
        placed = f" → {out}"
    if record.state is not State.DONE:
        rest = f"; {_count(record.images)}{placed}" if placed else ""
        raise FailedError(f"{name}: scan {scan.id} is {outcome(record)}{rest}", state=record.state)
    if out is not None and not placed:
        raise FileError(f"{name}: scan {scan.id} is done by {record.chosen} and has no images: nothing is in {out}")
    print(_summary(record, name) + placed, flush=True)
    for warning in record.warnings:
        print(f"{name}: {warning}", file=sys.stderr)


def _wait(scan: RemoteScan, name: str, progress: Progress) -> ScanRecord:
    task = progress.add_task(name, total=None)
    try:
        return scan.wait(progress=lambda record: progress.update(task, description=_words(Path(name).name, record)))
    finally:
        progress.remove_task(task)


def _words(name: str, record: ScanRecord) -> str:
    return f"{name}: {record.state.value}, {_count(record.images)}"


def _summary(record: ScanRecord, name: str) -> str:
    known = "" if name == record.id else f", scan {record.id}"
    seconds = record.finished_s - record.created_s
    return f"{name}: {_count(record.images)} by {record.chosen} in {seconds:.2f} s{known}"


def _count(images: int) -> str:
    return "1 image" if images == 1 else f"{images} images"
