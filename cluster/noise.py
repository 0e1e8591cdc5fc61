"""Noise scans by scanner and coils: a later scan that has none of its own is whitened with one that came before.

Kept is where the noise readouts lie in the spool, not the readouts: when retention removes that file, they are gone.
"""

from __future__ import annotations

import hashlib
import json
import logging
import threading
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from pathlib import Path

from cluster.config import ClusterConfig
from cluster.events import Extent
from recon.dependency import missing, noise_of
from recon.scan import ScanHeader

_log = logging.getLogger(__name__)


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
        """Let later scans find `noise`; the newest of a scanner and its coils counts.

        Where it cannot be written later scans go without, and say so; this one has what it needs.
        """
        document = {"spool": noise.spool.name, "extents": [astuple(e) for e in noise.extents], "coils": noise.coils}
        keys = [_configuration(header, noise.coils)]
        keys += [_measurement(header, header.measurement_id)] if header.measurement_id else []
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            for key in keys:
                self._write(key, json.dumps(document))
        except OSError as error:
            _log.warning("a noise scan cannot be kept for later scans: %s", error.strerror)

    def _write(self, key: str, text: str) -> None:
        """Nobody ever reads half of it."""
        fresh = self._folder / f"{key}.{threading.get_ident()}"
        fresh.write_text(text, encoding="utf-8")
        fresh.replace(self._folder / key)

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
            spool, extents = self._spool / document["spool"], tuple(Extent(*one) for one in document["extents"])
            fits = document["coils"] == coils and spool.exists()
        except (
            OSError,
            ValueError,
            KeyError,
            TypeError,
        ):  # not there, or cut short by a loss of power
            return None
        return NoiseRef(spool, extents, coils) if fits else None


def _measurement(header: ScanHeader, identity: str) -> str:
    return _key("measurement", _scanner(header), [identity])


def _configuration(header: ScanHeader, coils: int) -> str:
    return _key("configuration", _scanner(header), header.coil_names or [str(coils)])


def _scanner(header: ScanHeader) -> list[str]:
    return [header.manufacturer, header.model, header.station]


def _key(*parts: str | Sequence[str]) -> str:
    """A file's name for texts that may hold anything."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest() + ".json"
