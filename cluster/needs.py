"""What an installation lacks of what a command needs, by the requirements in the distribution's own metadata."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distribution, requires
from importlib.util import find_spec

DISTRIBUTION = "recon-cluster"
_REQUIREMENT = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)[^;]*(?:;\s*extra\s*==\s*['\"]([\w-]+)['\"])?\s*$")


def sentence(command: str, error: ImportError) -> str:
    """Why `command` cannot run here and what to install; empty where the module is there and the fault is another."""
    module = (error.name or "").partition(".")[0]
    if not module or find_spec(module) is not None:
        return ""
    start = f"{command} needs the package {module}, which is not installed"
    lacks, extra = _lacking(module)
    if not lacks:
        return f"{start}: install it"
    others = f"; this installation lacks {', '.join(lacks)}" if lacks != [module] else ""
    return f"{start}{others}: pip install '{DISTRIBUTION}{extra}'"


def _lacking(module: str) -> tuple[list[str], str]:
    """What is lacking, and the extra that brings it: of the package itself, and of the extra that `module` is in."""
    wanted = list(_requirements())
    extra = next((extra for name, extra in wanted if name.lower().startswith(module.lower())), "")
    return [name for name, of in wanted if of in ("", extra) and not _installed(name)], f"[{extra}]" if extra else ""


def _requirements() -> Iterator[tuple[str, str]]:
    """(distribution, extra) of each requirement; those for some systems only are left out."""
    try:
        lines = requires(DISTRIBUTION) or []
    except PackageNotFoundError:  # run from a folder, without any installation
        return
    for line in lines:
        if found := _REQUIREMENT.match(line):
            yield found[1], found[2] or ""


def _installed(name: str) -> bool:
    try:
        distribution(name)
    except PackageNotFoundError:
        return False
    return True
