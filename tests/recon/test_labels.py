"""Which entry of the header's lists belongs to an image."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from recon.labels import Labels, attributes, labels_of
from recon.scan import Counters, Diffusion, Geometry, Image, ScanHeader
from tests.recon.builders import header


def labels(facts: dict[str, Any], *, user_int: tuple[int, ...] = (0,) * 8, **counters: int) -> Labels:
    image = Image(
        np.zeros((1, 1, 2, 2), np.float32), (1.0, 1.0, 1.0), Geometry(), Counters(**counters), user_int=user_int
    )
    limits = {"contrast": (0, 2), "set": (0, 3), "repetition": (1, 5)}
    return labels_of(replace(header(limits=limits), **facts), image)


def test_one_value_holds_for_all_images() -> None:
    found = labels({"tr_ms": (7.0,), "te_ms": (3.0,), "flip_angle_deg": (12.0,)}, contrast=2, set=1)
    assert (found.tr_ms, found.te_ms, found.flip_deg) == (7.0, 3.0, 12.0)


def test_echoes_go_by_contrast() -> None:
    facts = {"te_ms": (1.0, 2.0, 3.0)}
    assert [labels(facts, contrast=i).te_ms for i in range(3)] == [1.0, 2.0, 3.0]


def test_inversions_go_by_the_counter_that_has_as_many() -> None:
    assert labels({"ti_ms": (100.0, 200.0, 300.0)}, contrast=1).ti_ms == 200
    assert labels({"ti_ms": (100.0, 200.0, 300.0, 400.0)}, set=3).ti_ms == 400
    assert labels({"ti_ms": (100.0, 200.0, 300.0, 400.0, 500.0)}, repetition=2).ti_ms == 200  # it counts from 1
    assert labels({"ti_ms": (100.0, 200.0)}, contrast=2).ti_ms is None


def test_a_measured_inversion_time_stands_above_the_nominal_one() -> None:
    facts = {"ti_ms": (100.0,), "user": {"InversionTimeUserInt": 7}}
    assert labels(facts, user_int=(0,) * 7 + (1_234_500,)).ti_ms == 1234.5
    assert labels(facts | {"user": {"InversionTimeUserInt": 8}}).ti_ms == 100.0


def test_diffusion_goes_by_its_dimension() -> None:
    entries = (Diffusion(0.0), Diffusion(1000.0, (0.0, 0.0, 1.0)))
    facts = {"diffusion": entries, "diffusion_dimension": "set"}
    assert [labels(facts, set=i).diffusion for i in range(3)] == [*entries, None]
    assert labels(facts | {"diffusion_dimension": "user_2"}).diffusion is None
    assert attributes(Labels(diffusion=entries[0])) == {"DiffusionBValue": "0"}
    assert attributes(Labels(diffusion=entries[1])) == {
        "DiffusionBValue": "1000",
        "DiffusionGradientOrientation": "0\n0\n1",
    }


def test_velocity_goes_by_set() -> None:
    facts = {"user": {"VelocityEncoding_1": 80, "VelocityEncodingDirection_1": "0 0 1"}}
    assert labels(facts, set=0) == Labels()
    found = labels(facts, set=1)
    assert (found.venc_cm_s, found.velocity_direction) == (80.0, (0.0, 0.0, 1.0))
    stranger = labels({"user": {"VelocityEncoding_1": "fast", "VelocityEncodingDirection_1": "up"}}, set=1)
    assert stranger == Labels()


def test_an_image_without_an_encoding_has_what_holds_for_all() -> None:
    image = Image(np.zeros((1, 1, 2, 2), np.float32), (1.0, 1.0, 1.0), Geometry(), Counters())
    assert labels_of(ScanHeader(b"", (), te_ms=(5.0,)), image) == Labels(te_ms=5.0)
