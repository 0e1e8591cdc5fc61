"""What the header says of one image of many: its echo, its inversion, its diffusion weighting, its velocity."""

from __future__ import annotations

from dataclasses import dataclass

from recon.scan import COUNTERS, Counters, Diffusion, Encoding, Image, Limit, ScanHeader, Vector3

# User parameters of ours: MRD has no fields for them. The last two end in the number of the set they belong to.
INVERSION_IN = "InversionTimeUserInt"  # which of a readout's user_int holds the time since its inversion, in µs
VELOCITY, VELOCITY_DIRECTION = "VelocityEncoding_", "VelocityEncodingDirection_"  # cm/s; "x y z" in LPS


@dataclass(frozen=True, slots=True)
class Labels:
    """How one image was weighted; None is what the header leaves open."""

    tr_ms: float | None = None
    te_ms: float | None = None
    ti_ms: float | None = None
    flip_deg: float | None = None
    diffusion: Diffusion | None = None
    venc_cm_s: float | None = None
    velocity_direction: Vector3 | None = None


def labels_of(header: ScanHeader, image: Image) -> Labels:
    """The labels of `image`: of each list in the header the entry that the image's counters pick."""
    counters = image.counters
    encoding = header.encodings[counters.encoding] if counters.encoding < len(header.encodings) else None
    return Labels(
        tr_ms=_pick(header.tr_ms, encoding, counters, "contrast"),
        te_ms=_pick(header.te_ms, encoding, counters, "contrast"),
        ti_ms=_inversion(header, encoding, image),
        flip_deg=_pick(header.flip_angle_deg, encoding, counters, "contrast", "set"),
        diffusion=_diffusion(header, encoding, counters),
        venc_cm_s=_number(header.user.get(f"{VELOCITY}{counters.set}")),
        velocity_direction=_vector(header.user.get(f"{VELOCITY_DIRECTION}{counters.set}")),
    )


def attributes(labels: Labels) -> dict[str, str]:
    """The same as MRD image attributes: the names of ISMRMRD where it has one (times in ms), else those of DICOM."""
    weighting = labels.diffusion
    values: dict[str, tuple[float, ...]] = {
        "RepetitionTime": _known(labels.tr_ms),
        "EchoTime": _known(labels.te_ms),
        "InversionTime": _known(labels.ti_ms),
        "FlipAngle": _known(labels.flip_deg),
        "DiffusionBValue": (weighting.b_s_mm2,) if weighting else (),
        "DiffusionGradientOrientation": weighting.direction if weighting and any(weighting.direction) else (),
        "VelocityEncoding": _known(labels.venc_cm_s),
        "VelocityEncodingDirection": labels.velocity_direction or (),
    }
    return {name: "\n".join(f"{number:.9g}" for number in numbers) for name, numbers in values.items() if numbers}


def _known(value: float | None) -> tuple[float, ...]:
    return () if value is None else (value,)


def _pick(values: tuple[float, ...], encoding: Encoding | None, counters: Counters, *names: str) -> float | None:
    """A single value holds for all images; of several, the counter that has as many picks one, else the first named."""
    if len(values) == 1:
        return values[0]
    limits = {name: _limit(encoding, name) for name in names}
    fitting = [name for name, limit in limits.items() if limit.maximum - limit.minimum + 1 == len(values)]
    name = (fitting or names)[0]
    place = int(getattr(counters, name)) - limits[name].minimum
    return values[place] if 0 <= place < len(values) else None


def _limit(encoding: Encoding | None, name: str) -> Limit:
    return encoding.limits.get(name, Limit(0, 0, 0)) if encoding else Limit(0, 0, 0)


def _inversion(header: ScanHeader, encoding: Encoding | None, image: Image) -> float | None:
    """Measured with every readout where the header says so, since a heart does not keep to nominal times."""
    where = header.user.get(INVERSION_IN)
    if isinstance(where, int) and 0 <= where < len(image.user_int):
        return image.user_int[where] / 1000
    return _pick(header.ti_ms, encoding, image.counters, "contrast", "set", "repetition")


def _diffusion(header: ScanHeader, encoding: Encoding | None, counters: Counters) -> Diffusion | None:
    name = header.diffusion_dimension
    if name not in COUNTERS or not hasattr(counters, name):
        return None
    place = int(getattr(counters, name)) - _limit(encoding, name).minimum
    return header.diffusion[place] if 0 <= place < len(header.diffusion) else None


def _number(value: float | str | None) -> float | None:
    return float(value) if isinstance(value, int | float) else None


def _vector(text: float | str | None) -> Vector3 | None:
    try:
        x, y, z = (float(part) for part in str(text).split())
    except ValueError:  # it is a stranger's parameter of the same name, or there is none
        return None
    return x, y, z
