"""Plans and work buffers: lent to one at a time, bounded, the same bits whoever computes."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from kernels.cpu.engine import ENGINES, PAD, Pool, buffer, even_parts
from kernels.reference import direct
from tests import tolerances
from tests.cases import noise
from tests.laws import assert_near


@pytest.mark.parametrize("name", ENGINES)
@pytest.mark.parametrize("forward", [True, False])
@pytest.mark.parametrize("axis", [0, 1])
def test_plans_transform_one_axis_and_keep_their_source(
    rng: np.random.Generator, name: str, forward: bool, axis: int
) -> None:
    source, target = buffer(6, 10)[:, 1:10], buffer(6, 10)[:, 1:10]
    execute = ENGINES[name]().plan(source, target, axis=axis, forward=forward)
    values = noise(rng, 6, 9)
    source[...] = values
    execute()
    n = values.shape[axis]
    matrix = np.exp((-2j if forward else 2j) * np.pi * np.outer(np.arange(n), np.arange(n)) / n)
    expected = matrix @ values if axis == 0 else values @ matrix
    assert_near(target, expected, tolerances.fft(n))
    assert np.array_equal(source, values)


def test_buffers_are_aligned_padded_and_zero() -> None:
    made = buffer(5, 12)
    assert made.shape == (5, 12 + PAD)
    assert made.ctypes.data % 64 == 0
    assert not made.any()


@pytest.mark.parametrize(("length", "longest"), [(1, 1), (7, 3), (8, 4), (9, 4), (5, 100), (33, 32)])
def test_parts_cover_all_and_differ_little(length: int, longest: int) -> None:
    parts = even_parts(length, longest)
    sizes = [part.stop - part.start for part in parts]
    assert [i for part in parts for i in range(part.start, part.stop)] == list(range(length))
    assert max(sizes) == sizes[0] <= longest
    assert len(parts) == -(-length // longest)


def test_a_pool_lends_each_work_once_and_keeps_few() -> None:
    made: list[int] = []

    def make(key: int) -> list[int]:
        made.append(key)
        return [key]

    pool = Pool(make, idle=2)
    with pool.borrow(1) as first, pool.borrow(1) as second:
        assert first is not second
    with pool.borrow(1) as again:
        assert again is first or again is second
    assert made == [1, 1]
    for key in (2, 3, 4):
        with pool.borrow(key):
            pass
    assert len(pool) == 2
    with pool.borrow(4), pool.borrow(3):
        assert len(pool) == 0
    assert made == [1, 1, 2, 3, 4]


def test_work_comes_back_after_an_error() -> None:
    pool = Pool(lambda key: [key], idle=2)
    with pytest.raises(RuntimeError), pool.borrow(1):
        raise RuntimeError
    assert len(pool) == 1


def test_every_process_computes_the_same_bits() -> None:
    code = (
        "import hashlib, numpy as np, kernels;"
        "k = np.random.default_rng(3).standard_normal((3, 1, 96, 160, 2), np.float32).view(np.complex64)[..., 0];"
        "image = kernels.on('cpu').ifft_rss(k, crop=(1, 96, 80));"
        "print(hashlib.sha256(image.tobytes()).hexdigest())"
    )
    runs = [subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True) for _ in range(3)]
    assert len({run.stdout for run in runs}) == 1


def test_the_reference_of_transforms_is_itself_right() -> None:
    """One wave has one frequency: x_r = exp(2πi·2r/N) is √N at k = 2, and no direct sum is needed to see it."""
    wave = np.exp(2j * np.pi * 2 * (np.arange(9) - 4) / 9).astype(np.complex64)
    spectrum = direct.dft(wave, (9,), sign=-1)
    expected = np.zeros(9)
    expected[4 + 2] = 3
    assert_near(spectrum, expected, 2 * tolerances.ROUND)


def test_fftw_is_loaded_without_scipy_and_shared_with_its_package() -> None:
    code = (
        "import sys, kernels; kernels.on('cpu'); assert 'scipy' not in sys.modules, 'SciPy costs every worker 0.35 s'\n"
        "import pyfftw; from kernels.cpu.engine import load_fftw; assert pyfftw.FFTW is load_fftw().FFTW"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
