"""Weights of a network as `safetensors` beside a card in JSON: stored together, checked, loaded by name."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from types import MappingProxyType
from typing import Any

from torch import Tensor, nn

from recon.errors import PackageError, WeightsError
from recon.networks import layer1, layer2

STORED = Path(__file__).parent / "stored"
LARGEST_BYTES = 64 << 20  # of a file; ours have less than 10 MB
CARD_BYTES = 1 << 20

Network = layer1.Unrolled | layer2.Enhance
NETWORKS: Mapping[str, tuple[Any, Any]] = MappingProxyType(
    {"layer1": (layer1.Unrolled, layer1.Design), "layer2": (layer2.Enhance, layer2.Design)}
)


@dataclass(frozen=True, slots=True)
class Card:
    """What there is to know of weights: the `network` and its `design`, hashes, and where they come from.

    `architecture` and `weights` are SHA-256; `training` holds data, seeds and the command, `metrics` figures by set of
    pictures, `limits` sentences on what the network was never shown.
    """

    network: str
    design: Mapping[str, int]
    architecture: str
    weights: str
    training: Mapping[str, Any]
    metrics: Mapping[str, Any]
    limits: tuple[str, ...]


def build(network: str, design: Mapping[str, int]) -> Network:
    """An untrained network of that name and design; raises WeightsError where there is none."""
    if network not in NETWORKS:
        raise WeightsError(f"the network is {network!r}, expected one of {', '.join(NETWORKS)}: name one of them")
    kind, sizes = NETWORKS[network]
    known = {field.name for field in fields(sizes)}
    if set(design) != known or not all(isinstance(value, int) and 0 < value <= 4096 for value in design.values()):
        raise WeightsError(
            f"the design of {network} is {dict(design)}, expected whole numbers for {', '.join(sorted(known))}: use"
            " the card that came with the weights"
        )
    made: Network = kind(sizes(**design))
    return made


def architecture_of(network: nn.Module) -> str:
    """SHA-256 of a network's name, its design, and the name and shape of each parameter."""
    shapes = {name: list(tensor.shape) for name, tensor in network.state_dict().items()}
    return _hash(_canonical([network.name, asdict(network.design), shapes]).encode())


def save(folder: Path, name: str, network: Network, *, told: Mapping[str, Any]) -> Card:
    """Write `name`.safetensors and its card, `name`.json, in `folder`; `told` is the rest of the card."""
    content = _safetensors().save({key: value.contiguous() for key, value in network.state_dict().items()})
    card = Card(network.name, asdict(network.design), architecture_of(network), _hash(content), **told)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.safetensors").write_bytes(content)
    write_card(folder / f"{name}.json", card)
    return card


def write_card(path: Path, card: Card) -> None:
    """Write a card as JSON."""
    path.write_text(json.dumps(asdict(card), indent=1) + "\n", encoding="utf-8")


def names(folder: Path = STORED) -> list[str]:
    """The names of the weights in `folder`."""
    return sorted(path.stem for path in folder.glob("*.safetensors"))


def load(name: str, *, network: str, folder: Path = STORED) -> tuple[Network, Card]:
    """The trained `network` that is stored in `folder` as `name`, ready to be used, and its card.

    Raises WeightsError where there is none of that name, where weights or card were altered, or where either is of
    another architecture.
    """
    if name not in names(folder):
        known = ", ".join(names(folder)) or "none"
        raise WeightsError(f"there are no weights {name[:80]!r}, the stored ones are {known}: name one of these")
    card = read_card(folder / f"{name}.json")
    content = _bounded(folder / f"{name}.safetensors", LARGEST_BYTES)
    if _hash(content) != card.weights:
        raise WeightsError(
            f"the weights {name} have SHA-256 {_hash(content)[:12]}…, their card says {card.weights[:12]}…: they were"
            " altered or belong to another card, so fetch both again"
        )
    made = build(card.network, card.design)
    if card.network != network or card.architecture != architecture_of(made):
        raise WeightsError(
            f"the card of {name} is of the network {card.network}, architecture {card.architecture[:12]}…, wanted"
            f" {network}, architecture {architecture_of(made)[:12]}…: use weights trained with this version"
        )
    _fill(made, _safetensors().load(content), name)
    return made.eval(), card


def read_card(path: Path) -> Card:
    """The card in a JSON file; raises WeightsError where it is missing or not one."""
    try:
        content = json.loads(_bounded(path, CARD_BYTES))
        return Card(**{**content, "limits": tuple(content["limits"])})
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise WeightsError(f"{path.name} is no card of weights ({error}): fetch it again with its weights") from error


def _fill(network: Network, found: Mapping[str, Tensor], name: str) -> None:
    """Take over tensors, if they are just those that the network has."""
    wanted = network.state_dict()
    wrong = sorted(key for key in wanted.keys() | found.keys() if _shape(wanted.get(key)) != _shape(found.get(key)))
    if wrong:
        key = wrong[0]
        raise WeightsError(
            f"the weights {name} differ from the network in {len(wrong)} tensors, first {key}: found"
            f" {_shape(found.get(key))}, wanted {_shape(wanted.get(key))}; use the weights that came with the card"
        )
    network.load_state_dict(dict(found))


def _shape(tensor: Tensor | None) -> str:
    return "none" if tensor is None else f"{tensor.dtype} {list(tensor.shape)}"


def _bounded(path: Path, largest: int) -> bytes:
    if path.stat().st_size > largest:
        raise WeightsError(f"{path.name} has {path.stat().st_size} bytes, expected at most {largest}: fetch it again")
    return path.read_bytes()


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _canonical(content: Any) -> str:
    return json.dumps(content, sort_keys=True, separators=(",", ":"))


def _safetensors() -> Any:
    try:
        import safetensors.torch
    except ImportError as error:
        raise PackageError(
            "weights need the package safetensors, which is not installed: pip install safetensors"
        ) from error
    return safetensors.torch
