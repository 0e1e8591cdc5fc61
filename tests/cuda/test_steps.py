"""Coil, proximal and wavelet kernels where the shared laws do not reach: order of threads, loops, limits of a GPU."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest

from kernels.contract import Complex, Equations
from kernels.cuda import CudaKernels, cg, coils, prox, wavelet
from kernels.reference import ReferenceKernels
from tests import tolerances
from tests.cases import noise
from tests.cuda.sanitized import run_sanitized
from tests.cuda.shim import ShimRuntime, find_compiler, open_shim
from tests.laws import assert_near

SEEDS = (0, 1, 2, 3)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(11)


@pytest.fixture
def k() -> CudaKernels:
    return open_shim(seed=2)


def bits(apply: Callable[[CudaKernels], Complex]) -> Iterator[bytes]:
    """What `apply` computes with threads and blocks in one order after another."""
    return (np.asarray(apply(open_shim(seed=seed))).tobytes() for seed in SEEDS)


def test_no_result_depends_on_the_order_of_threads(rng: np.random.Generator) -> None:
    """A missing barrier or a race would show: shared memory starts as NaN, threads run in shuffled order."""
    x, maps, mixing = noise(rng, 9, 16, 24), noise(rng, 9, 16, 24), noise(rng, 11, 9)
    phase = rng.uniform(-9, 9, (16, 24)).astype(np.float32)
    for apply in (
        lambda k: k.low_rank(x, 1.0, block=(8, 8), shift=(3, 5)),
        lambda k: k.wavelet(x, levels=(3, 3), shift=(3, 5)),
        lambda k: k.iwavelet(x, levels=(3, 3), shift=(3, 5)),
        lambda k: k.whiten(mixing, x.transpose(1, 0, 2)),
        lambda k: k.ifft_rss(x[:, None], crop=(1, 16, 12), whitening=mixing),
        lambda k: k.combine(x, maps),
        lambda k: k.rotate(x, phase),
        lambda k: k.shrink(x, 0.5),
    ):
        assert len(set(bits(apply))) == 1


def test_no_solve_depends_on_the_order_of_threads(rng: np.random.Generator) -> None:
    if find_compiler() is None:
        pytest.skip("g++ is not installed: the CUDA kernels are not executed on the CPU")
    rhs, weights = noise(rng, 3000), rng.uniform(1, 5, 3000).astype(np.float32)
    found = set()
    for seed in SEEDS:
        runtime = ShimRuntime(cg.NAMES, seed=seed)
        made = cg.CudaCg(runtime, Equations(lambda x: x * weights, (), None), shape=(3000,), iterations=5)
        found.add(made.solve(rhs).tobytes())
    assert len(found) == 1


def test_more_work_than_a_grid_can_name_is_done_in_turns(
    rng: np.random.Generator, k: CudaKernels, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, mixing = noise(rng, 7, 4, 6), noise(rng, 4, 4)
    phase = rng.uniform(-3, 3, 6).astype(np.float32)
    expected = (k.whiten(mixing, x), k.rotate(x, phase), k.wavelet(x, levels=(1, 1)), k.iwavelet(x, levels=(1, 1)))
    monkeypatch.setattr(coils, "MOST_BLOCKS_YZ", 2)
    monkeypatch.setattr(wavelet, "MOST_BLOCKS_YZ", 2)
    found = (k.whiten(mixing, x), k.rotate(x, phase), k.wavelet(x, levels=(1, 1)), k.iwavelet(x, levels=(1, 1)))
    assert all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize("images_at_once", [1, 2, 5])
def test_few_coil_images_are_alive_at_once(
    rng: np.random.Generator, k: CudaKernels, monkeypatch: pytest.MonkeyPatch, images_at_once: int
) -> None:
    kspace = noise(rng, 5, 2, 6, 8)
    monkeypatch.setattr(coils, "COILS_BYTES", images_at_once * 8 * 2 * 6 * 8)
    expected = ReferenceKernels().ifft_rss(kspace, crop=(2, 6, 4))
    tolerance = tolerances.fft(96) + tolerances.sum_of(10)
    assert_near(k.ifft_rss(kspace, crop=(2, 6, 4)), expected, tolerance, norm=float(np.linalg.norm(kspace)))


def test_more_coils_than_weights_in_shared_memory(rng: np.random.Generator, k: CudaKernels) -> None:
    mixing, samples = noise(rng, 67, 130), noise(rng, 130, 300)
    expected = ReferenceKernels().whiten(mixing, samples)
    magnitudes = np.linalg.norm(np.abs(mixing) @ np.abs(samples))
    assert_near(k.whiten(mixing, samples), expected, tolerances.sum_of(260), norm=float(magnitudes))


def test_a_block_must_fit_shared_memory(rng: np.random.Generator, k: CudaKernels) -> None:
    x = noise(rng, 100, 256)
    with pytest.raises(ValueError, match=r"block \(256,\) of 100 frames needs 285200 bytes .* at most 163840: use sm"):
        k.low_rank(x, 1.0, block=(256,))
    assert prox.matrix_bytes(64, 64) < prox.SHARED_BYTES
    assert prox.matrix_bytes(16, 64) == 8 * 16 * 80 + 64
    assert np.array_equal(k.low_rank(x[:3, :5], 1.0, block=(256,)), k.low_rank(x[:3, :5], 1.0, block=(5,)))


def test_blocks_that_a_grid_cannot_name_are_refused(k: CudaKernels) -> None:
    with pytest.raises(ValueError, match="70000 blocks along y or z, expected at most 65535: use larger ones"):
        k.low_rank(np.zeros((1, 70000, 1), np.complex64), 1.0, block=(1, 1))


@pytest.mark.parametrize("frames", [1, 2, 5, 16, 17])
def test_every_pair_of_vectors_meets_once(frames: int) -> None:
    """The pairing of prox.cu: orthogonal vectors after the sweeps, for any number of them."""
    rng = np.random.default_rng(frames)
    x = (noise(rng, 32, 4) @ noise(rng, 4, frames)).T.copy()  # rank 4 at most, so that most vectors vanish
    found = open_shim().low_rank(x, 2.0, block=(32,))
    expected = ReferenceKernels().low_rank(x, 2.0, block=(32,))
    assert_near(found, expected, tolerances.low_rank(frames, 32, 12), norm=float(np.linalg.norm(x)))


def test_no_kernel_reads_or_writes_out_of_bounds() -> None:
    """AddressSanitizer watches odd sizes, ragged blocks, single voxels and more coils than a group."""
    done = run_sanitized(
        """
        from kernels.contract import Equations
        from kernels.cuda import cg, coils, prox, wavelet
        from tests.cases import noise
        levels_used = {wavelet.SOURCE: tuple(f"{name}<{axes}>" for name in ("split", "join")
                       for axes in ("false, false, true", "false, true, true", "true, true, true"))}
        runtime = ShimRuntime(cg.NAMES | coils.NAMES | prox.NAMES | levels_used, sanitize=True)
        rng, p, w = np.random.default_rng(1), prox.CudaProx(runtime), wavelet.CudaWavelet(runtime)
        for shape, block in (((5, 13, 7), (4, 4)), ((9, 6, 7), (1, 1)), ((17, 9), (4,)), ((2, 3, 5, 6), (2, 9, 4))):
            p.low_rank(noise(rng, *shape), 0.5, block=block, shift=tuple(range(1, len(shape))))
        for shape, levels in (((2,), (1,)), ((3, 24, 10), (1, 1)), ((4, 2, 66), (1, 1, 1)), ((5, 6), (0, 1))):
            coefficients = w.forward(noise(rng, *shape), levels=levels, shift=(1,) * len(levels))
            w.inverse(coefficients, levels=levels, shift=(1,) * len(levels))
        x, maps, c = noise(rng, 9, 3, 7, 11), noise(rng, 9, 3, 7, 11), coils.CudaCoils(runtime, None)
        c.combine(x, maps), c.expand(x[0], maps), c.rss(x), p.shrink(x, 0.5)
        c.rotate(x, np.ones((7, 11), np.float32)), c.whiten(noise(rng, 3, 7), x), c.whiten(noise(rng, 70, 7), x)
        made = cg.CudaCg(runtime, Equations(lambda v: 2 * v, (), None), shape=(301,), iterations=3)
        made.solve(noise(rng, 301))
        print("done")
        """
    )
    assert done.stdout == "done\n", done.stderr
