"""Everything that can go wrong with a scan, as exceptions whose message is the one sentence a user reads.

    ReconError
    ├── InputError              the bytes or the file cannot be understood
    │   ├── WireError           the MRD stream breaks the protocol
    │   ├── HeaderError         the header XML is missing, malformed or contradicts itself
    │   └── FileError           the file is not what its name or type promised
    ├── LimitError              within the protocol, but larger than this installation allows
    ├── ScanError               the scan contradicts its own header (counters, coils, trajectory, NaN)
    │   └── CalibrationError    the scan lacks what a method calibrates with; a plainer method may do without
    ├── RecipeError             an unknown recipe, method or parameter
    ├── DeviceError             the device asked for is not there or cannot be used
    ├── PackageError            an optional package that this needs is not installed
    ├── WeightsError            a network's weights are missing, altered, or of another network
    ├── RefusedError            the server does not take the scan now (full, draining, disk)
    └── LostError               the server could not be reached, or went away in the middle

Every message says what, which value, what was expected and what to do, in one sentence.
"""


class ReconError(Exception):
    """Base of all errors that this project raises on purpose; `str(error)` is one sentence for a user."""


class InputError(ReconError):
    """The bytes or the file cannot be understood."""


class WireError(InputError):
    """The MRD stream breaks the protocol."""


class HeaderError(InputError):
    """The header XML is missing, malformed or contradicts itself."""


class FileError(InputError):
    """The file is not what its name or type promised."""


class LimitError(ReconError):
    """Legal by the protocol, but larger than this installation allows."""


class ScanError(ReconError):
    """The scan contradicts its own header: counters, coils, trajectory or samples."""


class CalibrationError(ScanError):
    """The scan lacks what a method calibrates with, or its coils cannot support it; a plainer method may do without."""


class RecipeError(ReconError):
    """An unknown recipe, method or parameter."""


class DeviceError(ReconError):
    """The device asked for is not there or cannot be used."""


class PackageError(ReconError):
    """An optional package that this needs is not installed."""


class WeightsError(ReconError):
    """A network's weights are missing, altered, or of another network."""


class RefusedError(ReconError):
    """The server does not take the scan now; `retry_after_s` says when asking again makes sense (None: never)."""

    def __init__(self, message: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class LostError(ReconError):
    """The server could not be reached, or the connection to it was lost."""
