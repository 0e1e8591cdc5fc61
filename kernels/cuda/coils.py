"""Coil operations and phase correction on a GPU; nothing here waits for the device."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from kernels.checks import check_coils, check_complex, check_expand, check_phase, check_rss, check_whiten
from kernels.contract import Complex, Real
from kernels.cuda._load import Runtime, blocks_of, check_here
from kernels.cuda.fft import CudaFft

THREADS, MIXED, MIX_THREADS, MIX_SAMPLES = 256, 8, 128, 2  # as in coils.cu
MOST_BLOCKS_YZ = 65535
MOST_VALUES = 2**31 - 1  # the kernels count voxels in int32
COILS_BYTES = 32 << 20  # coil images made at once by `ifft_rss`: they stay in the second-level cache until summed
NAMES = {"coils.cu": ("combine", "expand", "add_squares", "mix", "mixed_rss", "rotate")}


class CudaCoils:
    """Coil operations of one device; each takes memory for its result only, unless it says more."""

    def __init__(self, runtime: Runtime, fft: CudaFft) -> None:
        self._runtime = runtime
        self._fft = fft

    def rss(self, images: Complex) -> Real:
        """See `Kernels.rss`."""
        check_here(self._runtime, images=images)
        check_complex(images, "images", 2)
        total = self._runtime.xp.empty(images.shape[1:], np.float32)
        self._add_squares(images, total, first=True, last=True)
        return total  # type: ignore[no-any-return]

    def combine(self, images: Complex, maps: Complex) -> Complex:
        """See `Kernels.combine`."""
        check_here(self._runtime, images=images, maps=maps)
        check_coils(images, maps)
        out = self._empty(images.shape[1:])
        self._launch("combine", count(out), images, maps, out, len(images), count(out))
        return out

    def expand(self, image: Complex, maps: Complex) -> Complex:
        """See `Kernels.expand`."""
        check_here(self._runtime, image=image, maps=maps)
        check_expand(image, maps)
        out = self._empty(maps.shape)
        self._launch("expand", count(image), image, maps, out, len(maps), count(image))
        return out

    def whiten(self, whitening: Complex, samples: Complex) -> Complex:
        """See `Kernels.whiten`."""
        check_here(self._runtime, whitening=whitening, samples=samples)
        check_whiten(whitening, samples)
        *batch, coils, length = samples.shape
        out = self._empty((*batch, len(whitening), length))
        groups = min(prod(batch), MOST_BLOCKS_YZ)
        grid = (blocks_of(length, MIX_THREADS * MIX_SAMPLES), blocks_of(len(whitening), MIXED), groups)
        sizes = (len(whitening), coils, length, prod(batch))
        self._start("mix", grid, MIX_THREADS, whitening, samples, out, *sizes)
        return out

    def rotate(self, x: Complex, phase: Real) -> Complex:
        """See `Kernels.rotate`."""
        check_here(self._runtime, x=x, phase=phase)
        check_phase(x, phase)
        out = self._empty(x.shape)
        batch = prod(x.shape[: x.ndim - phase.ndim])
        grid = (blocks_of(count(phase), THREADS), min(batch, MOST_BLOCKS_YZ))
        self._start("rotate", grid, THREADS, x, phase, out, count(phase), batch)
        return out

    def ifft_rss(self, kspace: Complex, *, crop: tuple[int, int, int], whitening: Complex | None = None) -> Real:
        """See `Kernels.ifft_rss`; with `whitening` the cropped images of all coils are held, else only a few of them.

        Mixing the coils and the transform change places, so that only what is kept is mixed, and never stored.
        """
        check_here(self._runtime, kspace=kspace, whitening=whitening)
        check_rss(kspace, crop, whitening)
        if whitening is not None:
            return self._summed(self._fft.ifft(kspace, axes=3, crop=crop), whitening)
        total = self._runtime.xp.empty(crop, np.float32)
        step = max(1, COILS_BYTES // (8 * prod(kspace.shape[1:])))
        for start in range(0, len(kspace), step):
            images = self._fft.ifft(kspace[start : start + step], axes=3, crop=crop)
            self._add_squares(images, total, first=start == 0, last=start + step >= len(kspace))
        return total  # type: ignore[no-any-return]

    def ifft_rss_each(
        self, kspace: Sequence[Complex], *, crop: tuple[int, int, int], whitening: Sequence[Complex | None]
    ) -> list[Real]:
        """See `Kernels.ifft_rss_each`: one transform of as many frames as stay in the second-level cache, or of one."""
        for one, mix in zip(kspace, whitening, strict=True):
            check_here(self._runtime, kspace=one, whitening=mix)
            check_rss(one, crop, mix)
        step = COILS_BYTES // (8 * prod(kspace[0].shape))
        if step < 2 or len(kspace) < 2:
            return [self.ifft_rss(one, crop=crop, whitening=mix) for one, mix in zip(kspace, whitening, strict=True)]
        found: list[Real] = []
        for start in range(0, len(kspace), step):
            frames = self._runtime.xp.stack(kspace[start : start + step])
            images = self._fft.ifft(frames, axes=3, crop=crop)
            found += [self._summed(*pair) for pair in zip(images, whitening[start : start + step], strict=True)]
        return found

    def _summed(self, images: Complex, whitening: Complex | None) -> Real:
        """Root-sum-of-squares of coil images [coil, *grid], mixed by `whitening` on the way where there is one."""
        total = self._runtime.xp.empty(images.shape[1:], np.float32)
        if whitening is None:
            self._add_squares(images, total, first=True, last=True)
        else:
            grid = (blocks_of(count(total), MIX_THREADS * MIX_SAMPLES),)
            self._start("mixed_rss", grid, MIX_THREADS, whitening, images, total, *whitening.shape, count(total))
        return total  # type: ignore[no-any-return]

    def _add_squares(self, images: Complex, total: Real, *, first: bool, last: bool) -> None:
        sizes = (len(images), count(total), int(first), int(last))
        self._launch("add_squares", count(total), images, total, *sizes)

    def _empty(self, shape: tuple[int, ...]) -> Complex:
        return self._runtime.xp.empty(shape, np.complex64)  # type: ignore[no-any-return]

    def _launch(self, name: str, voxels: int, *args: Any) -> None:
        """Start a kernel whose threads own one voxel of all coils each."""
        self._start(name, (blocks_of(voxels, THREADS),), THREADS, *args)

    def _start(self, name: str, grid: tuple[int, ...], threads: int, *args: Any) -> None:
        xp = self._runtime.xp
        arguments = [xp.ascontiguousarray(value) if isinstance(value, xp.ndarray) else value for value in args]
        self._runtime.launch(("coils.cu", name), grid, (threads,), *arguments)


def count(array: Complex | Real) -> int:
    """How many values `array` has; raises ValueError where the kernels cannot count them."""
    if array.size > MOST_VALUES:
        raise ValueError(f"an array has {array.size} values, expected at most {MOST_VALUES} on a GPU: split it")
    return array.size
