"""Noise scans by scanner and coils: a later scan that has none of its own is whitened with one that came before.

Kept is where the noise readouts lie in the spool, not the readouts: when retention removes that file, they are gone.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from pathlib import Path

from cluster.config import ClusterConfig
from cluster.events import Extent
from recon.dependency import missing, noise_of
from recon.scan import ScanHeader


@dataclass(frozen=True, slots=True)
class NoiseRef:
    """The noise readouts of a scan by reference, and of how many coils they are."""

    spool: Path
    extents: tuple[Extent, ...]
    coils: int


class NoiseStore:
    """A folder with one small file for each noise scan; loses nothing that cannot be measured again."""

    def __init__(self, config: ClusterConfig) -> None:
        self._folder = config.noise_folder
        self._spool = config.spool_folder
        self._by_configuration = config.noise_reuse == "configuration"

    def keep(self, header: ScanHeader, noise: NoiseRef) -> None:
        """Let later scans find `noise`; the newest of a scanner and its coils counts."""
        self._folder.mkdir(parents=True, exist_ok=True)
        document = {"spool": noise.spool.name, "extents": [astuple(e) for e in noise.extents], "coils": noise.coils}
        keys = [_configuration(header, noise.coils)]
        keys += [_measurement(header, header.measurement_id)] if header.measurement_id else []
        for key in keys:
            path = self._folder / key
            fresh = path.with_suffix(f".{threading.get_ident()}")
            fresh.write_text(json.dumps(document), encoding="utf-8")
            os.replace(fresh, path)  # noqa: PTH105 (Path.replace is the same call; this one says what is atomic)

    def find(self, header: ScanHeader, coils: int) -> NoiseRef | None:
        """The noise scan that `header` names, or, where the configuration allows it, the last of the same coils."""
        named = noise_of(header)
        if named:
            return self._read(_measurement(header, named), coils)
        return self._read(_configuration(header, coils), coils) if self._by_configuration else None

    def missing(self, header: ScanHeader) -> tuple[str, ...]:
        """The warning for images of a scan for which nothing was found."""
        if self._by_configuration and not noise_of(header):
            return ("no noise scan of this scanner and these coils is stored: the image is not whitened",)
        return missing(header)

    def _read(self, key: str, coils: int) -> NoiseRef | None:
        try:
            document = json.loads((self._folder / key).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        spool = self._spool / document["spool"]
        if document["coils"] != coils or not spool.exists():
            return None
        return NoiseRef(spool, tuple(Extent(*numbers) for numbers in document["extents"]), coils)


def _measurement(header: ScanHeader, identity: str) -> str:
    return _key("measurement", _scanner(header), [identity])


def _configuration(header: ScanHeader, coils: int) -> str:
    return _key("configuration", _scanner(header), header.coil_names or [str(coils)])


def _scanner(header: ScanHeader) -> list[str]:
    return [header.manufacturer, header.model, header.station]


def _key(*parts: str | Sequence[str]) -> str:
    """A file's name for texts that may hold anything."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest() + ".json"
