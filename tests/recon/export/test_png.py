"""PNG pictures: read back, their grey values are what the window says."""

from __future__ import annotations

import io
import sys

import numpy as np
import pytest
from PIL import Image as pillow

from recon.errors import FileError, ReconError
from recon.export.png import tile, to_png
from tests.recon.export.builders import image


def decode(png: bytes) -> np.ndarray:
    with pillow.open(io.BytesIO(png)) as picture:
        return np.array(picture)


@pytest.mark.parametrize(("bits", "dtype"), [(8, np.uint8), (16, np.uint16)])
def test_a_ramp_from_black_to_white(bits: int, dtype: type) -> None:
    ramp = np.linspace(0, 1, 256, dtype=np.float32)
    white = 2**bits - 1
    rows = np.tile(ramp, (1, 1, 4, 1))
    high = np.percentile(rows[rows > 0], 99.5)
    grey = decode(to_png([image(rows)], bits=bits))
    assert grey.dtype == dtype
    expected = np.rint(np.clip(ramp.astype(np.float64) / high, 0, 1) * white)
    np.testing.assert_allclose(grey, np.tile(expected, (4, 1)), atol=1)  # a tie may round either way


def test_slices_are_tiled_in_reading_order_under_one_window() -> None:
    levels = np.array([1.0, 2.0, 3.0, 4.0, 4.0], np.float32)
    grey = decode(to_png([image(np.broadcast_to(levels[:, None, None], (1, 5, 4, 4)).copy())]))
    assert grey.shape == (8, 12)
    tiles = grey.reshape(2, 4, 3, 4).transpose(0, 2, 1, 3).reshape(6, 16)
    assert [int(t[0]) for t in tiles] == [64, 128, 191, 255, 255, 0]  # 255·level/4, the sixth place is empty
    assert all(len(set(t.tolist())) == 1 for t in tiles)


def test_several_images_share_the_picture() -> None:
    dim, bright = (image(np.full((1, 1, 4, 4), level, np.float32)) for level in (1.0, 2.0))
    grey = decode(to_png([dim, bright]))
    assert grey.shape == (4, 8)
    assert (set(grey[:, :4].flat), set(grey[:, 4:].flat)) == ({128}, {255})


def test_planes_of_unequal_size_are_centred() -> None:
    grey = tile([np.full((4, 4), 7, np.uint8), np.full((2, 2), 9, np.uint8)])
    assert grey.shape == (4, 8)
    np.testing.assert_array_equal(grey[:, 4:], np.pad(np.full((2, 2), 9), 1))


def test_of_a_complex_image_the_magnitude_is_shown() -> None:
    pixels = np.full((1, 1, 4, 4), 3 + 4j, np.complex64)
    assert to_png([image(pixels)]) == to_png([image(np.full((1, 1, 4, 4), 5, np.float32))])


def test_a_picture_of_nothing_is_refused() -> None:
    with pytest.raises(FileError) as caught:
        to_png([])
    assert str(caught.value) == (
        "there is no image to draw, a PNG needs at least one: look at the scan's log for the cause"
    )


def test_without_pillow_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(ReconError) as caught:
        to_png([image()])
    assert str(caught.value) == (
        "PNG output needs the package pillow, which is not installed: install it or choose .h5 output"
    )
