"""Weights and their card: what is stored comes back, and whatever does not belong together is refused by name."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from recon.errors import WeightsError

torch = pytest.importorskip("torch", reason="torch is not installed: pip install -e '.[learned]'")
pytest.importorskip("safetensors", reason="safetensors is not installed: pip install -e '.[learned]'")
from safetensors.torch import load_file, save_file  # noqa: E402

from recon.networks import weights  # noqa: E402

SMALL = {"width": 4, "levels": 1}
TOLD: dict[str, Any] = {"training": {"seed": 1}, "metrics": {}, "limits": ("drawn at random for a test",)}


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    torch.manual_seed(1)
    weights.save(tmp_path, "small", weights.build("layer2", SMALL), told=TOLD)
    return tmp_path


def altered(folder: Path, **changes: Any) -> None:
    """Write a card whose fields are others."""
    card = weights.read_card(folder / "small.json")
    (folder / "small.json").write_text(json.dumps(asdict(replace(card, **changes))), encoding="utf-8")


def resealed(folder: Path, tensors: dict[str, Any]) -> None:
    """Write other tensors, and their hash into the card."""
    save_file(tensors, folder / "small.safetensors")
    altered(folder, weights=weights._hash((folder / "small.safetensors").read_bytes()))


def test_what_is_stored_comes_back(stored: Path) -> None:
    torch.manual_seed(1)
    expected = weights.build("layer2", SMALL).state_dict()
    network, card = weights.load("small", network="layer2", folder=stored)
    assert all(torch.equal(expected[key], value) for key, value in network.state_dict().items())
    assert not network.training
    assert card.design == SMALL and card.limits == TOLD["limits"] and card.training == {"seed": 1}


def test_an_unknown_name_is_refused_with_the_known_ones(stored: Path) -> None:
    with pytest.raises(WeightsError, match=r"no weights '\.\./small', the stored ones are small: name one of these$"):
        weights.load("../small", network="layer2", folder=stored)


def test_altered_weights_are_refused(stored: Path) -> None:
    path = stored / "small.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=r"weights small have SHA-256 \w+…, their card says \w+…: they were altered"):
        weights.load("small", network="layer2", folder=stored)


def test_the_card_of_another_network_is_refused(stored: Path) -> None:
    with pytest.raises(WeightsError, match=r"card of small is of the network layer2, .* wanted layer1, "):
        weights.load("small", network="layer1", folder=stored)


@pytest.mark.parametrize("design", [{"width": 4, "levels": 2}, {"width": 8, "levels": 1}])
def test_the_card_of_another_architecture_is_refused(stored: Path, design: dict[str, int]) -> None:
    altered(stored, design=design)
    with pytest.raises(WeightsError, match=r"architecture \w+…, wanted layer2, architecture \w+…: use weights trained"):
        weights.load("small", network="layer2", folder=stored)


def test_missing_surplus_and_misshapen_tensors_are_named(stored: Path) -> None:
    tensors = load_file(stored / "small.safetensors")
    leave = tensors.pop("unet.leave.weight")
    resealed(stored, tensors)
    with pytest.raises(
        WeightsError, match=r"in 1 tensors, first unet\.leave\.weight: found none, wanted torch\.float32"
    ):
        weights.load("small", network="layer2", folder=stored)
    resealed(stored, {**tensors, "unet.leave.weight": leave, "more": leave.clone()})
    with pytest.raises(WeightsError, match=r"first more: found torch\.float32 \[2, 4, 3, 3\], wanted none"):
        weights.load("small", network="layer2", folder=stored)
    resealed(stored, {**tensors, "unet.leave.weight": leave.double()})
    with pytest.raises(
        WeightsError, match=r"found torch\.float64 \[2, 4, 3, 3\], wanted torch\.float32 \[2, 4, 3, 3\]"
    ):
        weights.load("small", network="layer2", folder=stored)


@pytest.mark.parametrize("content", ["{", "[]", '{"network": "layer2"}', ""])
def test_what_is_no_card_is_refused(stored: Path, content: str) -> None:
    (stored / "small.json").write_text(content, encoding="utf-8")
    with pytest.raises(
        WeightsError, match=r"small\.json is no card of weights \(.+\): fetch it again with its weights"
    ):
        weights.load("small", network="layer2", folder=stored)


def test_unknown_networks_and_designs_are_refused() -> None:
    with pytest.raises(
        WeightsError, match=r"the network is 'layer3', expected one of layer1, layer2: name one of them"
    ):
        weights.build("layer3", SMALL)
    with pytest.raises(
        WeightsError, match=r"design of layer2 is \{'width': 10000000, .* expected whole numbers for lev"
    ):
        weights.build("layer2", {"width": 10_000_000, "levels": 1})


def test_every_stored_network_loads() -> None:
    for name in weights.names():
        card = weights.read_card(weights.STORED / f"{name}.json")
        weights.load(name, network=card.network)
