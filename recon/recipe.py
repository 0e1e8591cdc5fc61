"""A recipe: which method reconstructs a scan and with which parameters, as validated, hashable data.

A name from the wire is an opaque key into CATALOGUE, never a path, a module or code.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from importlib.metadata import entry_points

from recon.errors import RecipeError

Value = str | int | float | bool

AUTO = "auto"
ANALYTIC = "analytic"
GEOMETRIC = "geometric"
PROPAGATED = ("fft", "grappa", "sense")  # methods whose noise has a formula
CINE = "cine"
OFF = "off"
NULL = "null"


@dataclass(frozen=True, slots=True)
class Parameter:
    """What a parameter may be: one of `choices`, or a value of the default's type between `minimum` and `maximum`.

    Beside choices a maximum allows whole numbers too.
    """

    default: Value
    choices: tuple[str, ...] = ()
    minimum: float = 0.0
    maximum: float = 0.0

    def describe(self) -> str:
        """The legal values in words."""
        if self.choices:
            words = "one of " + ", ".join(self.choices)
            return f"{words}, or a whole number from {self.minimum:g} to {self.maximum:g}" if self.maximum else words
        if isinstance(self.default, bool):
            return "true or false"
        kind = "a whole number" if isinstance(self.default, int) else "a number"
        return f"{kind} from {self.minimum:g} to {self.maximum:g}"


PARAMETERS: Mapping[str, Parameter] = {
    "combine": Parameter("rss", choices=("rss", "adaptive")),
    "output": Parameter("magnitude", choices=("magnitude", "complex", "phase", "real")),
    "oversampling": Parameter("remove", choices=("remove", "keep")),
    "whiten": Parameter(True),
    "trajectory_unit": Parameter("cycles/voxel", choices=("cycles/voxel", "cycles/fov", "1/m")),
    "eps": Parameter(1e-4, minimum=1e-5, maximum=1e-2),
    "density": Parameter("auto", choices=("auto", "voronoi")),
    "iterations": Parameter(10, minimum=1, maximum=1000),
    "lambda": Parameter(0.0, minimum=0.0, maximum=1e6),
    "phases": Parameter(20, minimum=1, maximum=1000),
    "rr_tolerance": Parameter(0.3, minimum=0.01, maximum=1.0),
    "over": Parameter("all", choices=("all", "repetition", "phase", "contrast", "set", "time")),
    "respiration": Parameter(OFF, choices=(OFF, "auto", "waveform", "self")),
    "acceptance": Parameter(0.4, minimum=0.01, maximum=1.0),
    "bins": Parameter(1, minimum=1, maximum=100),
    "window": Parameter(0, minimum=0, maximum=1e6),
    "stride": Parameter(0, minimum=0, maximum=1e6),
    "maps": Parameter("espirit", choices=("espirit", "walsh")),
    "partial_fourier": Parameter("off", choices=("off", "homodyne", "pocs")),
    "fallback": Parameter(False),
    "coils": Parameter("all", choices=("all", "auto"), minimum=1, maximum=1024),
    "compression": Parameter("svd", choices=("svd", "geometric")),
    "gfactor": Parameter(False),
    "off_resonance": Parameter("correct", choices=("correct", "off")),
    "delays": Parameter("estimate", choices=("estimate", "off")),
    "snr": Parameter("off", choices=("off", "analytic"), minimum=2, maximum=1000),
    "sets": Parameter(1, minimum=1, maximum=4),
    "strength": Parameter(0.5, minimum=0.0, maximum=1e6),
    "tolerance": Parameter(1e-3, minimum=0.0, maximum=1.0),
    "last_step": Parameter("prior", choices=("prior", "data")),
}

_COMMON = ("output", "oversampling", "whiten", "coils")
_WINDOW = ("window", "stride")
_BREATH = ("respiration", "acceptance", "bins")
_SHOTS = ("trajectory_unit", "delays", "off_resonance")
_PRIOR = (*_SHOTS, "eps", "iterations", "maps", "sets", "strength", "tolerance")
_SPARSE = ("compression", *_PRIOR, "last_step", "snr")
_OWN: Mapping[str, tuple[str, ...]] = {
    AUTO: (*_COMMON, "combine", *_SHOTS, "partial_fourier"),
    "fft": (*_COMMON, "compression", "combine", "partial_fourier", "snr", *_BREATH),
    "grappa": (*_COMMON, "compression", "combine", "partial_fourier", "fallback", "gfactor", "snr"),
    "slice-grappa": (*_COMMON, "combine", "partial_fourier", "fallback"),
    "gridding": (*_COMMON, "combine", *_SHOTS, "eps", "density", "snr", *_WINDOW, *_BREATH),
    "sense": (*_COMMON, "compression", "lambda", "partial_fourier", "fallback", "gfactor", "snr"),
    "cg-sense": (
        *_COMMON,
        "compression",
        *_SHOTS,
        "eps",
        "iterations",
        "lambda",
        "maps",
        "sets",
        "partial_fourier",
        "snr",
        *_WINDOW,
        *_BREATH,
    ),
    "l1-wavelet": (*_COMMON, *_SPARSE, *_BREATH),
    "tv": (*_COMMON, *_SPARSE, *_BREATH),
    "grasp": (*_COMMON, *_PRIOR, "over", "window"),
    "llr": (*_COMMON, *_PRIOR, "over", "window"),
    CINE: (
        *_COMMON,
        "combine",
        *_SHOTS,
        "eps",
        "partial_fourier",
        "phases",
        "rr_tolerance",
        "respiration",
        "acceptance",
    ),
    NULL: (),
}
EXTENSIONS = entry_points(group="recon_cluster.methods")
# A method of another package may be given every parameter; what it does not read has no effect.
METHOD_PARAMETERS: Mapping[str, tuple[str, ...]] = {entry.name: tuple(PARAMETERS) for entry in EXTENSIONS} | dict(_OWN)
# Where a method's default differs from the usual one of PARAMETERS.
METHOD_DEFAULTS: Mapping[str, Mapping[str, Value]] = {
    "l1-wavelet": {"iterations": 30},
    "tv": {"iterations": 30},
    "sense": {"lambda": 1.0},
    "llr": {"iterations": 30, "strength": 0.25},
    "grasp": {"iterations": 30, "over": "time", "window": 21},
}


def default_of(method: str, name: str) -> Value:
    """What the parameter `name` is where a recipe for `method` does not say."""
    return METHOD_DEFAULTS.get(method, {}).get(name, PARAMETERS[name].default)


@dataclass(frozen=True, slots=True)
class Recipe:
    """A method and all of its parameters; those not given take their defaults. Raises RecipeError."""

    method: str = AUTO
    parameters: Mapping[str, Value] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.method not in METHOD_PARAMETERS:
            raise RecipeError(
                f"the method is {_shown(self.method)}, expected one of {', '.join(METHOD_PARAMETERS)}: name one of them"
            )
        object.__setattr__(self, "parameters", _complete(self.method, self.parameters))

    def __hash__(self) -> int:
        return hash(self.hash)

    @property
    def hash(self) -> str:
        """SHA-256 of the canonical JSON: equal for equal work, on every machine and version of Python."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    def to_json(self) -> str:
        """Canonical JSON, which `resolve` reads back."""
        content = {"method": self.method, "parameters": dict(self.parameters)}
        return json.dumps(content, sort_keys=True, separators=(",", ":"))

    def __getitem__(self, name: str) -> Value:
        return self.parameters[name]

    def text(self, name: str) -> str:
        """A parameter that is one of several words."""
        return str(self.parameters[name])

    def number(self, name: str) -> float:
        """A parameter that is a number."""
        return float(self.parameters[name])


def breathes(recipe: Recipe) -> bool:
    """Whether readouts are sorted by the breath."""
    return recipe.parameters.get("respiration", OFF) != OFF


def _complete(method: str, given: Mapping[str, object]) -> dict[str, Value]:
    names = METHOD_PARAMETERS[method]
    for name in given:
        if name not in names:
            known = ", ".join(sorted(names)) or "none"
            words = f"the parameter {_shown(name)} is unknown to the method {method}, which has {known}: leave it out"
            raise RecipeError(words + (", or name a method that has it" if _elsewhere(method, name) else ""))
    values = {name: _valid(name, given.get(name, default_of(method, name))) for name in sorted(names)}
    if values.get("maps") == "walsh" and values.get("sets") != 1:
        raise RecipeError(f"sets is {values['sets']}, but maps walsh makes one set: ask for maps espirit or sets 1")
    if values.get("sets", 1) != 1 and values.get("partial_fourier", "off") != "off":
        raise RecipeError(
            f"sets is {values['sets']}, whose images are combined without phase, but partial_fourier is"
            f" {values['partial_fourier']}, which needs it: ask for partial_fourier off or sets 1"
        )
    if values.get("sets", 1) != 1 and values["output"] != "magnitude":
        raise RecipeError(
            f"sets is {values['sets']}, whose images are combined without phase, but output is {values['output']}:"
            " ask for output magnitude or sets 1"
        )
    if values.get("window", 0) and values.get("respiration", OFF) != OFF:
        raise RecipeError(
            f"window is {values['window']} and respiration {values['respiration']}: a window shows what happens, of"
            " which sorting by the breath takes out a part: ask for one of them"
        )
    _check_snr(method, values)
    return _combined(values, chosen="combine" in given)


def _check_snr(method: str, values: Mapping[str, Value]) -> None:
    """Raises RecipeError where no formula gives the noise of an image."""
    if values.get("snr") != ANALYTIC:
        return
    if method in _OWN and method not in PROPAGATED:
        raise RecipeError(
            f"snr is analytic, but how noise goes through the method {method} is known for {', '.join(PROPAGATED)}"
            " only: ask for a number of replicas"
        )
    if values.get("partial_fourier", "off") != "off":
        raise RecipeError(
            f"snr is analytic, but partial_fourier is {values['partial_fourier']}, through which noise goes by no"
            " formula: ask for a number of replicas"
        )


def _elsewhere(method: str, name: str) -> bool:
    """Whether `auto` was given what only some of its methods have."""
    return method == AUTO and name in PARAMETERS


def _combined(values: dict[str, Value], *, chosen: bool) -> dict[str, Value]:
    """Root-sum-of-squares has no phase: other outputs take the adaptive combination, unless RSS was asked for."""
    if values.get("output", "magnitude") == "magnitude" or values.get("combine") != "rss":
        return values
    if chosen:
        raise RecipeError(
            f"combine is rss, which has no phase, but output is {values['output']}: ask for combine adaptive"
        )
    return values | {"combine": "adaptive"}


def _valid(name: str, given: object) -> Value:
    parameter = PARAMETERS[name]
    value = _converted(parameter, given)
    if value is None:
        raise RecipeError(f"the parameter {name} is {_shown(given)}, expected {parameter.describe()}: correct it")
    return value


def _converted(parameter: Parameter, given: object) -> Value | None:
    """`given` as the parameter's type, or None; texts are understood, since FIRE clients send every value as one."""
    if parameter.choices and not (parameter.maximum and _number(given) is not None):
        return given if isinstance(given, str) and given in parameter.choices else None
    if isinstance(parameter.default, bool):
        return {"true": True, "false": False}.get(str(given).lower()) if isinstance(given, bool | str) else None
    number = _number(given)
    if number is None or not parameter.minimum <= number <= parameter.maximum:
        return None
    if isinstance(parameter.default, float):
        return number
    return int(number) if number.is_integer() else None


def _number(given: object) -> float | None:
    if isinstance(given, bool) or not isinstance(given, int | float | str):
        return None
    try:
        return float(given)
    except (ValueError, OverflowError):
        return None


def _shown(value: object) -> str:
    """A value from outside for an error message, cut to a readable length."""
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


_ALIASES: Mapping[str, Recipe] = {
    # python-ismrmrd-server, FIRE and OpenRecon clients
    "default": Recipe(),
    "openrecon": Recipe(),
    "simplefft": Recipe("fft"),
    "savedataonly": Recipe(NULL),
    # Gadgetron clients
    "default.xml": Recipe(),
    "default_short.xml": Recipe(),
    "default_optimized.xml": Recipe(),
    "Generic_Cartesian_FFT.xml": Recipe("fft"),
    "Generic_Cartesian_Grappa.xml": Recipe("grappa"),
    "Generic_Cartesian_Grappa_SNR.xml": Recipe("grappa"),
    "Generic_Cartesian_Grappa_Complex.xml": Recipe("grappa", {"output": "complex"}),
}

CATALOGUE: Mapping[str, Recipe] = {name: Recipe(name) for name in METHOD_PARAMETERS} | dict(_ALIASES)


def resolve(text: str, overrides: Mapping[str, object] | None = None) -> Recipe:
    """The recipe that a configuration names: a key of CATALOGUE or a recipe as JSON, with `overrides` put on top.

    Raises RecipeError for an unknown name (with the known ones), method or parameter.
    """
    text = text.rstrip("\0").strip()
    recipe = apply_text(Recipe(), text) if text.startswith("{") else _named(text)
    return _override(recipe, overrides or {})


def apply_text(
    recipe: Recipe, text: str, *, keep_method: bool = False, under: Mapping[str, object] | None = None
) -> Recipe:
    """`recipe` with what a JSON text sets: {"method": …, "parameters": {…}} or the parameters alone.

    FIRE and OpenRecon clients send such a text after the header, with the configuration's name under "config".
    `keep_method` takes the parameters only; `under` them go others, on top of a recipe that the text names. Raises
    RecipeError.
    """
    name, given = _read(text)
    named = recipe if name is None else _override(_named(name), under or {})
    return _override(recipe if keep_method else named, given)


def settings_of(text: str) -> dict[str, object]:
    """The parameters that a recipe sets by itself: those of a JSON text, none for a name. Raises RecipeError."""
    return _read(text)[1] if text.lstrip().startswith("{") else {}


def written(recipe: str | Mapping[str, object]) -> str:
    """A recipe as text, which may be given as what its JSON says; raises RecipeError where it cannot be JSON."""
    if isinstance(recipe, str):
        return recipe
    try:
        return json.dumps(dict(recipe))
    except (TypeError, ValueError, RecursionError) as error:
        words = f"the recipe {_shown(recipe)} is no JSON ({error}), expected texts, numbers, true or false: correct it"
        raise RecipeError(words) from error


def with_settings(text: str, settings: Mapping[str, object]) -> str:
    """The recipe `text`, a name or JSON, with `settings` put on top, as JSON; unchanged where there are none."""
    if not settings:
        return text
    name, given = _read(text) if text.lstrip().startswith("{") else (text, {})
    return json.dumps({"method": name or AUTO, "parameters": given | dict(settings)})


def _read(text: str) -> tuple[object, dict[str, object]]:
    """The name of a method or configuration in a JSON text, None where it has none, and the parameters that it sets."""
    given = _read_json(text)
    nested = given.pop("parameters", {})
    if not isinstance(nested, dict):
        raise RecipeError(f"parameters is {_shown(nested)}, expected a JSON object of names and values: correct it")
    given |= nested
    given.pop("version", None)
    if given.get("customconfig") == "":
        del given["customconfig"]
    name = given.pop("method", None) or given.pop("config", None)
    given.pop("config", None)
    return name, given


def _named(name: object) -> Recipe:
    if not isinstance(name, str) or name not in CATALOGUE:
        raise RecipeError(
            f"the configuration {_shown(name)} is unknown, expected one of {', '.join(CATALOGUE)}: send one of these"
        )
    return CATALOGUE[name]


def _override(recipe: Recipe, values: Mapping[str, object]) -> Recipe:
    """`recipe` with `values` put on top; only what differs from a default counts as chosen."""
    kept = {name: value for name, value in recipe.parameters.items() if value != default_of(recipe.method, name)}
    return replace(recipe, parameters=kept | dict(values)) if values else recipe  # type: ignore[arg-type]


def _read_json(text: str) -> dict[str, object]:
    try:
        value = json.loads(text.rstrip("\0"))
    except (ValueError, RecursionError) as error:
        raise RecipeError(f"the text is not JSON ({error}), expected an object of parameters: correct it") from error
    if not isinstance(value, dict):
        raise RecipeError(f"the JSON text is {_shown(value)}, expected an object of parameters: correct it")
    return value
