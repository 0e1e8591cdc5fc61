"""`docs/configuration.md`, made from the configuration: `python -m cluster.handbook > docs/configuration.md`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import Field, fields
from typing import Any

from cluster.config import GIB, KIB, MIB, ClusterConfig

HEAD = """# Configuration

`recon-cluster serve --config FILE` reads a TOML file with any of these keys; what it does not name has its default, and
an option of the command line overrides the file. An unknown key, a wrong type or a value out of bounds is refused by
name. Times are in seconds (`_s`), sizes in bytes (`_bytes`).

```toml
data = "/srv/recon"
workers = 4
idle_timeout_s = 60
```

This page is made from `cluster/config.py` by `python -m cluster.handbook > docs/configuration.md`.

| key | default | from … to | meaning |
|---|---|---|---|
"""


def page() -> str:
    """The whole page."""
    return HEAD + "".join(f"{row}\n" for row in rows())


def rows() -> Iterator[str]:
    """One row of the table per key, in the order of the configuration."""
    for item in fields(ClusterConfig):
        yield f"| `{item.name}` | {_value(item, item.default)} | {_legal(item)} | {item.metadata['meaning']} |"


def _legal(item: Field[Any]) -> str:
    if "low" in item.metadata:
        return f"{_value(item, item.metadata['low'])} … {_value(item, item.metadata['high'])}"
    choices: tuple[str, ...] = item.metadata.get("choices", ())
    return ", ".join(f"`{choice}`" for choice in choices) or "any text"


def _value(item: Field[Any], value: Any) -> str:
    if not isinstance(value, int | float):
        return f"`{value}`"
    if item.name.endswith("_bytes"):
        return size(int(value))
    return f"{int(value):,}".replace(",", " ") if value == int(value) else f"{value:g}"


def size(count: int) -> str:
    """A number of bytes in the largest unit that leaves it whole."""
    for unit, word in ((GIB << 10, "TiB"), (GIB, "GiB"), (MIB, "MiB"), (KIB, "KiB")):
        if count and count % unit == 0:
            return f"{count // unit} {word}"
    return str(count)


if __name__ == "__main__":
    print(page(), end="")
