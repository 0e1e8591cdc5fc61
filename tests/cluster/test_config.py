"""The configuration: every key named, bounded, and refused with a sentence."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest

import cluster
from cluster.config import ClusterConfig, ConfigError, configure, read_config

NUMBERS = [item for item in fields(ClusterConfig) if "low" in item.metadata]


def write(folder: Path, text: str) -> Path:
    path = folder / "recon.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_file_sets_what_it_names(tmp_path: Path) -> None:
    config = read_config(write(tmp_path, 'data = "/srv/recon"\nworkers = 3\nidle_timeout_s = 7\nray = "off"\n'))
    assert (config.data, config.workers, config.idle_timeout_s, config.ray) == (Path("/srv/recon"), 3, 7.0, "off")
    assert config.ledger_path == Path("/srv/recon/ledger.sqlite")
    assert config.max_batch_frames == ClusterConfig().max_batch_frames


@pytest.mark.parametrize("item", fields(ClusterConfig), ids=lambda item: item.name)
def test_every_key_has_a_meaning_and_a_use(item) -> None:
    assert item.metadata["meaning"]
    sources = [path for path in Path(cluster.__file__).parent.rglob("*.py") if path.name != "config.py"]
    derived = {"data": "spool_folder"}  # read through a property
    use = f".{derived.get(item.name, item.name)}"
    assert any(use in path.read_text(encoding="utf-8") for path in sources), "nothing reads it"


@pytest.mark.parametrize("item", NUMBERS, ids=lambda item: item.name)
def test_every_number_is_bounded_and_its_default_inside(item) -> None:
    low, high = item.metadata["low"], item.metadata["high"]
    assert low <= item.default <= high
    for value in (low - 1, high + 1):
        with pytest.raises(ConfigError, match=rf"{item.name} is {value}, expected a number from .* to .*: correct it"):
            configure(ClusterConfig(), {item.name: value})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("idle_timout_s = 5", "unknown key 'idle_timout_s' in the configuration, the nearest known one is 'idle_timeo"),
        ("[limits]\nworkers = 1", "unknown key 'limits' in the configuration, the nearest known one is "),
        ('workers = "two"', "workers is 'two', expected a number: correct it"),
        ("workers = 1.5", "workers is 1.5, expected a whole number: correct it"),
        ("workers = true", "workers is True, expected a number: correct it"),
        ("device = 1", "device is 1, expected a text: correct it"),
        ('device = "tpu"', "device is 'tpu', expected one of auto, cpu, cpu:scipy, cuda: correct it"),
        (
            "spool_unsynced_bytes = 1048576",
            "spool_unsynced_bytes is 1048576, less than spool_sync_bytes 16777216: raise it, or nothing could be",
        ),
        (
            "heartbeat_s = 5",
            "heartbeat_timeout_s is 8, less than three times heartbeat_s 5: raise it, or a worker that is only late wo",
        ),
        ("workers = ", "recon.toml cannot be read"),
    ],
)
def test_wrong_files_are_refused_by_name(tmp_path: Path, text: str, message: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        read_config(path)
    assert str(path) in str(caught.value)
    assert message in str(caught.value)


def test_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"the configuration .*none.toml cannot be read .*: give a TOML file"):
        read_config(tmp_path / "none.toml")


def test_a_hung_worker_is_found_within_ten_seconds() -> None:
    """By its silence, or by a batch that takes too long; either is looked at once a tick, and a tick may be late."""
    config = ClusterConfig()
    assert max(config.heartbeat_timeout_s, config.batch_grace_s) + 2 * config.tick_s < 10.0
