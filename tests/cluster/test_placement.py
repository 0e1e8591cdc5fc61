"""Which GPU each worker sees, as far as that can be told without one; contradictions are refused in words."""

from __future__ import annotations

from pathlib import Path

import pytest

from cluster.config import ClusterConfig, ConfigError, configure
from cluster.placement import PlacementError, gpus_for, named, per_gpu, placed
from cluster.server import gpus_of
from cluster.workers import ProcessWorkers
from recon.errors import DeviceError
from tests.cluster import deaths, scans


def test_gpus_are_named_by_number_or_uuid() -> None:
    assert named("") == named("  ") == ()
    assert named("2, 0") == ("2", "0")
    assert named("MIG-8bc3,GPU-12ab/1/0") == ("MIG-8bc3", "GPU-12ab/1/0")


@pytest.mark.parametrize(("share", "fit"), [(1.0, 1), (0.5, 2), (1 / 3, 3), (0.4, 2), (0.6, 1), (0.1, 10)])
def test_whole_workers_share_a_gpu(share: float, fit: int) -> None:
    assert per_gpu(share) == fit
    assert [gpus_for(workers, share) for workers in (1, fit, fit + 1)] == [1, 1, 2]


def test_workers_fill_one_gpu_after_the_other() -> None:
    assert placed(["w0", "w1", "w2"], ["MIG-a", "MIG-b"], 0.5) == {"w0": "MIG-a", "w1": "MIG-a", "w2": "MIG-b"}
    with pytest.raises(PlacementError, match=r"3 workers of 0.6 GPUs each need 3 GPUs, there are 2 \(0, 1\): ask for"):
        placed(["w0", "w1", "w2"], ["0", "1"], 0.6)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"gpus": "0,x"}, "gpus names 'x', expected a number or a UUID like GPU-… or MIG-…: correct it"),
        ({"gpus": "0,1,0"}, "gpus names 0 twice: name it once, and share it by gpus_per_worker"),
        ({"gpus": "0", "device": "cpu"}, "gpus is '0', but device is cpu: leave one of them out"),
        ({"gpus_per_worker": 0.5, "device": "cpu"}, "gpus_per_worker is 0.5, but device is cpu: leave one of them out"),
        (
            {"gpus": "0", "ray": "auto"},
            "gpus is '0', but ray is 'auto', which gives out the GPUs of its own nodes: ",
        ),
        ({"gpus": "0,1", "workers": 3}, "3 workers of 1 GPUs each need 3 GPUs, there are 2 (0, 1): ask for fewer"),
        ({"gpus_per_worker": 1.5}, "gpus_per_worker is 1.5, expected a number from 0.01 to 1.0"),
    ],
)
def test_contradictions_are_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        configure(ClusterConfig(), values)
    assert message in str(caught.value)


def test_named_gpus_that_are_not_there_are_refused() -> None:
    with pytest.raises(DeviceError, match="gpus is '0', but no GPU can be used here: check the driver or leave it out"):
        gpus_of(ClusterConfig(gpus="0"))
    assert gpus_of(ClusterConfig()) == ()


def test_a_process_sees_its_own_gpu_alone() -> None:
    workers = ProcessWorkers(["w0"], scans.settings(), gpus={"w0": "MIG-a"})
    workers.start(lambda event: None)
    try:
        deaths.wait_for(lambda: workers.pid("w0"))
        environment = Path(f"/proc/{workers.pid('w0')}/environ")
        deaths.wait_for(lambda: b"CUDA_VISIBLE_DEVICES=MIG-a" in environment.read_bytes().split(b"\0"))
    finally:
        workers.stop()
