"""`recon-cluster demo`: a whole cluster on this machine, four simulated scanners, their images beside the truth."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track

from cluster.commands.remote import Subparsers
from cluster.commands.scan import play, seed, speed
from cluster.exits import FAILED
from cluster.scanner import SimulatedScanner
from cluster.verdict import Verdict, judge, summary
from recon.errors import FileError, LostError
from recon.export.montage import Comparison, write_montage
from recon.simulate import PROTOCOLS, simulate

FOLDER = Path("recon-demo")
LOG = FOLDER / "server.log"
NAMES = ("brain-se", "head-gre3d", "heart-radial", "heart-spiral")
SPEED = 4.0


def add_parser(subparsers: Subparsers) -> None:
    """Declare the subcommand and its arguments."""
    parser = subparsers.add_parser("demo", help="a cluster and four simulated scanners on this machine, with pictures")
    pace = "times the sequences' own pace; 0: as fast as the wire takes it (default: %(default)g)"
    parser.add_argument("--speed", type=speed, default=SPEED, metavar="X", help=pace)
    parser.add_argument(
        "--seed", type=seed, default=0, metavar="S", help="other noise and coils (default: %(default)s)"
    )
    parser.add_argument("--ray", default="local", metavar="local|off", help="workers as Ray actors or plain processes")


def run(args: argparse.Namespace) -> int:
    """Stream, compare, draw; 0 only if every image is near its truth and no other came."""
    console = Console(width=110)
    _make_folder()
    with tempfile.TemporaryDirectory(prefix="recon-demo-") as data, served(Path(data), ray=args.ray) as starting:
        console.print(f"a cluster starts, its log is {LOG}")
        scanners = [
            SimulatedScanner(simulate(name, seed=args.seed), speed=args.speed)
            for name in track(NAMES, description="four scanners measure", console=console)
        ]
        server = starting.wait()
        console.print(f"cluster ready: {server['workers']} workers on {server['device']}, MRD on {server['mrd']}")
        console.print(f"four scanners stream at {args.speed:g} times their sequences' own pace")
        host, _, port = server["mrd"].rpartition(":")
        errors = play(scanners, lambda scanner: scanner.over_tcp(host, int(port)), console=console)
    for error in errors:
        print(error, file=sys.stderr)
    return report(scanners, judge(scanners), speed=args.speed, console=console)


def _make_folder() -> None:
    try:
        FOLDER.mkdir(exist_ok=True)
        LOG.touch()
    except OSError as error:
        place = FOLDER.absolute()
        raise FileError(f"{place} cannot be written ({error.strerror}): run the demo in another folder") from error


class Starting:
    """A server process on its way up."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def wait(self) -> dict[str, Any]:
        """What its ready line says; raises LostError when it ends instead."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise LostError(f"the server ended with status {self.process.wait()} before it was ready: read {LOG}")
        ready: dict[str, Any] = json.loads(line)
        return ready


@contextmanager
def served(data: Path, *, ray: str) -> Iterator[Starting]:
    """A server of its own with `data`, on free ports; stopped at the end."""
    words = ["serve", "--data", str(data), "--mrd", "127.0.0.1:0", "--http", "127.0.0.1:0", "--ray", ray]
    command = [sys.executable, "-m", "cluster", *words]
    with (
        LOG.open("w", encoding="utf-8") as log,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True) as process,
    ):
        try:
            yield Starting(process)
        finally:
            process.terminate()


def report(scanners: Sequence[SimulatedScanner], verdicts: Sequence[Verdict], *, speed: float, console: Console) -> int:
    """Write picture and summary, say the result; returns the exit status."""
    rows = [_comparison(name, [verdict for verdict in verdicts if verdict.scanner == name]) for name in NAMES]
    write_montage(rows, FOLDER / "montage.png", title="recon-cluster demo: what came back, and the truth")
    document = summary(scanners, verdicts, speed=speed)
    (FOLDER / "summary.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    wrong = [verdict for verdict in verdicts if not verdict.passed]
    for verdict in wrong:
        console.print(f"{verdict.scanner}, {verdict.truth.counters}: {verdict.words}")
    for sentence in document["surplus"]:
        console.print(sentence)
    console.print(
        f"{len(verdicts) - len(wrong)} of {len(verdicts)} images are near their truth; {_throughput(document)}"
    )
    console.print(f"pictures: {FOLDER / 'montage.png'}, figures: {FOLDER / 'summary.json'}")
    return 0 if document["passed"] else FAILED


def _throughput(document: dict[str, Any]) -> str:
    total = document["total"]
    wait = total["last_readout_to_image_s"]
    return (
        f"{total['megabytes']:.0f} MB in {total['seconds']:.1f} s, {total['readouts_per_s']:.0f} readouts/s, "
        f"from last readout to image {wait['median']:.3f} s (median), {wait['max']:.3f} s (longest)"
    )


def _comparison(name: str, verdicts: Sequence[Verdict]) -> Comparison:
    """The row of a scanner: the image that is nearest to its limit, or farthest beyond it."""
    worst = max(verdicts, key=lambda verdict: verdict.nrmse / verdict.allowed)
    plane = worst.truth.pixels.shape[0] // 2
    image = np.zeros_like(worst.truth.pixels) if worst.image is None else worst.image
    good = sum(verdict.passed for verdict in verdicts)
    detail = (
        f"{PROTOCOLS[name].description}\n{good} of {len(verdicts)} near their truth\nshown: the image nearest its limit"
    )
    return Comparison(
        name, detail, image[plane], worst.truth.pixels[plane], worst.nrmse, worst.allowed, worst.spacing_mm
    )
