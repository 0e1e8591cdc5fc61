"""Rows of a benchmark and the environment they were measured in: a table on the terminal, one JSON object in a file."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from recon.errors import InputError

PERCENTILES = (50, 95, 99)
PACKAGES = ("numpy", "scipy", "finufft", "pyfftw", "ray", "torch", "h5py", "ismrmrd", "uvicorn", "cupy-cuda13x")


@dataclass(frozen=True, slots=True)
class Row:
    """One figure: the median `value` of `samples`, beside the median of its `baseline` measured in the same run."""

    id: str
    value: float
    unit: str
    baseline: float | None = None
    ratio: float | None = None
    samples: tuple[float, ...] = ()


def row(name: str, samples: Sequence[float], unit: str, baseline: Sequence[float] = ()) -> Row:
    """A row from measured `samples`; with as many `baseline` samples the ratio is the median of the pairwise ratios."""
    base = statistics.median(baseline) if baseline else None
    ratio = statistics.median(s / b for s, b in zip(samples, baseline, strict=True)) if baseline else None
    return Row(name, statistics.median(samples), unit, base, ratio, tuple(samples))


def percentiles(name: str, seconds: Sequence[float]) -> list[Row]:
    """Rows of the percentiles of durations, interpolated between the two nearest (of one alone, that one)."""
    cuts = statistics.quantiles(seconds, n=100, method="inclusive") if len(seconds) > 1 else [seconds[0]] * 99
    return [Row(f"{name}.p{p}", cuts[p - 1], "s", samples=(cuts[p - 1],)) for p in PERCENTILES]


def environment() -> dict[str, Any]:
    """Where and when this was measured: machine, versions, commit, load average before the run."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _commit(),
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "device": "cpu",
        "kernel": platform.release(),
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in PACKAGES},
        "load_average": list(os.getloadavg()),
    }


def write(rows: Sequence[Row], path: Path, *, about: Mapping[str, Any]) -> None:
    """Write `{"environment", "rows"}` as JSON to `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    document = {"environment": dict(about), "rows": [asdict(entry) for entry in rows]}
    path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def show(rows: Sequence[Row], *, title: str) -> None:
    """Print `rows` as a table."""
    from rich.console import Console  # a GPU machine's own Python, which stores results only, may lack it
    from rich.table import Table

    table = Table(title=title)
    for column, justify in (("id", "left"), ("median", "right"), ("unit", "left"), ("baseline", "right")):
        table.add_column(column, justify=justify)  # type: ignore[arg-type]  # rich's Literal from a loop variable
    table.add_column("ratio", justify="right")
    table.add_column("samples", justify="right")
    for entry in rows:
        table.add_row(
            entry.id,
            _figure(entry.value),
            entry.unit,
            _figure(entry.baseline),
            _figure(entry.ratio),
            str(len(entry.samples)),
        )
    Console(width=110).print(table)


def read(path: Path) -> tuple[dict[str, Any], list[Row]]:
    """Environment and rows of a stored result; raises InputError when the file is none."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        rows = [Row(**{**entry, "samples": tuple(entry["samples"])}) for entry in document["rows"]]
        return document["environment"], rows
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}): name a file that is there") from error
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} holds no result of `recon-cluster bench`: name one that --json wrote") from error


def markdown(path: Path) -> str:
    """A stored result as a Markdown table, as the documents quote it."""
    about, rows = read(path)
    machine = f"{about['cpu']}, {about['cores']} cores, load {about['load_average'][0]:.1f}"
    lines = [f"`bench/results/{path.name}` ({machine}):", "", "| id | median | unit | beside | ratio | runs |"]
    lines.append("|---|---|---|---|---|---|")
    lines += [
        f"| `{r.id}` | {_figure(r.value)} | {r.unit} | {_figure(r.baseline)} | {_figure(r.ratio)} | {len(r.samples)} |"
        for r in rows
    ]
    return "\n".join(lines) + "\n"


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _commit() -> str:
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _cpu_model() -> str:
    info = Path("/proc/cpuinfo")
    if not info.exists():
        return platform.processor()
    names = [
        line.partition(":")[2].strip() for line in info.read_text(encoding="utf-8").splitlines() if "model name" in line
    ]
    return names[0] if names else platform.processor()
