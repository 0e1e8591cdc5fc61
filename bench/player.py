"""One simulated scanner of the load generator, a process of its own: plays a protocol again and again over MRD/TCP.

    python -m bench.player HOST PORT PROTOCOL REPETITIONS SECONDS

It makes the scan (of REPETITIONS, or with 0 of as many as is usual), plays it once unmeasured, so that the workers know
it, prints `ready`, waits for a line on standard input, plays it until SECONDS of playing have passed, once at least,
and prints one JSON object of what it saw (`run` starts several of them and reads those objects).
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from bench import together
from bench.server import Endpoint
from cluster.scanner import SimulatedScanner
from recon.errors import ReconError
from recon.simulate import SimulatedScan
from recon.simulate.scans import simulate

MB = 1e6


def run(endpoint: Endpoint, names: Sequence[str], *, seconds: float, repetitions: int | None) -> list[dict[str, Any]]:
    """Let one process for each of `names` play that protocol, all at once; one result object each."""
    fixed = (sys.executable, "-m", "bench.player", endpoint.host, str(endpoint.port))
    return together.run([(*fixed, name, str(repetitions or 0), str(seconds)) for name in names])


def play(simulated: SimulatedScan, endpoint: Endpoint, seconds: float) -> Iterator[SimulatedScanner]:
    """The scan, played until `seconds` of playing have passed; making ready for the next one does not count."""
    played_s = 0.0
    while True:
        scanner = SimulatedScanner(simulated, speed=0.0)
        scanner.over_tcp(endpoint.host, endpoint.port)
        yield scanner
        played_s += scanner.status().sending_s
        if played_s >= seconds:
            return


def _seen(name: str, played: Sequence[SimulatedScanner]) -> dict[str, Any]:
    seen = [one.status() for one in played]
    return {
        "protocol": name,
        "mb_per_s": [status.bytes_per_s / MB for status in seen],
        "readouts_per_s": [status.readouts_per_s for status in seen],
        "images": [status.images for status in seen],
        "latency_s": [latency for one in played for latency in one.latencies_s],
    }


def main() -> int:
    """One scanner."""
    host, port, name, repetitions, seconds = sys.argv[1:]
    endpoint = Endpoint(host, int(port), "", 0)
    simulated = simulate(name, repetitions=int(repetitions) or None)
    try:
        list(play(simulated, endpoint, 0.0))
        print("ready", flush=True)
        sys.stdin.readline()
        print(json.dumps(_seen(name, list(play(simulated, endpoint, float(seconds))))), flush=True)
    except ReconError as error:
        print(f"{name}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
