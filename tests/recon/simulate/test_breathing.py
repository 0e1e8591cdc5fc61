"""A body that breathes: its k-space against that of the body held still, and what a belt shows of it."""

from __future__ import annotations

import numpy as np

from recon.scan import Physiology
from recon.simulate import simulate
from recon.simulate.anatomies import ABDOMEN, abdomen_regions
from recon.simulate.breathing import VIEW_MM, coronal, parts
from recon.simulate.coils import coil_spectrum
from recon.simulate.measurement import chest_array, seen_by
from recon.simulate.objects import fill
from recon.simulate.phantom import Shapes, section
from recon.simulate.physiology import BASELINE, BELLOWS_SPAN, Breaths, bellows, breath, breaths

RNG = np.random.default_rng(3)
COILS = seen_by(chest_array(3), coronal(), np.full(2, VIEW_MM))


def test_each_point_sees_the_body_where_it_has_moved_to() -> None:
    """The object moves, the coils do not: as if every shape stood elsewhere when the point is measured."""
    k = RNG.uniform(-0.1, 0.1, (25, 2))
    moved = RNG.uniform(-20, 20, (25, 2))
    shapes = Shapes(
        np.array([[5.0, -4.0], [-30, 10]]), np.array([[[30.0, 4], [0, 20]], [[8, 0], [1, 9]]]), np.ones(2), 2.0
    )
    found = coil_spectrum(shapes, COILS, k, moved_mm=moved)
    for i in range(25):
        there = Shapes(shapes.center + moved[i], shapes.semiaxes, shapes.intensity, shapes.blur_mm)
        # Contents of 700 in double precision.
        np.testing.assert_allclose(found[:, i], coil_spectrum(there, COILS, k[i : i + 1])[:, 0], rtol=0, atol=1e-9)


def test_the_slice_shows_the_whole_abdomen_at_every_depth() -> None:
    """Translated parts are the sections of the regions where the breath has moved them."""
    k = RNG.uniform(-0.05, 0.05, (30, 2))
    for depth in (0.0, 0.37, 1.2):
        resting = section(fill(ABDOMEN, lambda tissue: tissue.density), coronal())
        whole = section(fill(abdomen_regions(depth), lambda tissue: tissue.density), coronal())
        assert whole.center.shape == resting.center.shape
        found = sum(
            coil_spectrum(_dense(part.shapes, resting), COILS, k, moved_mm=depth * part.motion_mm)
            for part in parts(coronal())
        )
        blurred = Shapes(whole.center, whole.semiaxes, whole.intensity, parts(coronal())[0].shapes.blur_mm)
        np.testing.assert_allclose(found, coil_spectrum(blurred, COILS, k), rtol=0, atol=1e-8)
        assert len(parts(coronal())) >= 2


def _dense(part: Shapes, whole: Shapes) -> Shapes:
    """`part` with the intensities that shapes at the same places have in `whole`."""
    rows = [int(np.linalg.norm(whole.center - center, axis=1).argmin()) for center in part.center]
    return Shapes(part.center, part.semiaxes, whole.intensity[rows], part.blur_mm)


def test_breaths_rest_at_the_end_of_expiration() -> None:
    breathing = breaths(np.random.default_rng(1), seconds=60)
    time = np.arange(0, 60, 0.01)
    depth = breath(time, breathing)
    assert depth.min() >= 0 and depth.max() <= 1.3 + 1e-9
    assert 14 <= len(np.unique(np.searchsorted(breathing.start_s, time))) <= 20  # breaths of 3.6 s
    np.testing.assert_allclose(breath(breathing.start_s[1:5], breathing), 0, atol=1e-12)
    middle = (breathing.start_s[1:5] + breathing.start_s[2:6]) / 2
    np.testing.assert_allclose(breath(middle, breathing), breathing.depth[1:5])
    assert np.median(depth) < 0.3  # sin⁴ is below a quarter half of the time
    assert np.std(np.diff(breathing.start_s)) > 0.1 and np.std(breathing.depth) > 0.05


def test_the_belt_shows_the_breath() -> None:
    breathing = Breaths(np.array([-1.0, 2.0, 6.0]), np.array([1.0, 0.5]))
    blocks = bellows(breathing, seconds=5.0, first_tick=1000, measurement_uid=7)
    assert {block.kind for block in blocks} == {Physiology.RESPIRATION}
    assert [block.time_stamp for block in blocks] == [1000 + 320 * i for i in range(7)]  # 0.8 s in ticks of 2.5 ms
    trace = np.concatenate([block.samples[0] for block in blocks])
    np.testing.assert_allclose(trace, BASELINE + BELLOWS_SPAN * breath(np.arange(280) * 0.02, breathing), atol=0.5)


def test_the_protocol_streams_its_belt_and_repeats() -> None:
    one, two = (simulate("abdomen-radial", seed=5, coils=2, matrix=16, repetitions=2) for _ in range(2))
    assert {block.kind for block in one.scan.waveforms} == {Physiology.RESPIRATION}
    assert (one.scan.readouts[-1].samples == two.scan.readouts[-1].samples).all()
    assert [truth.counters.repetition for truth in one.truth] == [0, 1]
    ends = one.scan.waveforms[-1]
    assert ends.time_stamp + 320 > one.scan.readouts[-1].head["acquisition_time_stamp"][-1]
