"""Refusals shared by every device: wrong dtype, shape or crop, with the value and what was expected."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Protocol

import numpy as np

if TYPE_CHECKING:
    from kernels.contract import Complex, Real


class Sampled(Protocol):
    """What maps images of `shape` to and from `samples`."""

    shape: tuple[int, ...]
    samples: tuple[int, ...]


def check_complex(array: Complex, name: str, axes: int) -> None:
    """`array` must be complex64 with at least `axes` axes, none of them empty."""
    if array.dtype != np.complex64:
        raise TypeError(f"{name} has dtype {array.dtype}, expected complex64: convert it first")
    if array.ndim < axes or 0 in array.shape:
        raise ValueError(f"{name} has shape {array.shape}, expected at least {axes} axes, none empty: reshape it")


def check_last(array: Complex, name: str, last: tuple[int, ...]) -> None:
    """`array` must be complex64 and its last axes must have the sizes `last`."""
    check_complex(array, name, len(last))
    if array.shape[array.ndim - len(last) :] != last:
        raise ValueError(f"{name} has shape {array.shape}, expected its last axes to be {last}: reshape it")


def check_shape(array: Complex, name: str, shape: tuple[int, ...]) -> None:
    """`array` must be complex64 of exactly `shape`."""
    check_complex(array, name, 0)
    if array.shape != shape:
        raise ValueError(f"{name} has shape {array.shape}, expected {shape}: reshape it")


def check_crop(crop: tuple[int, ...], grid: tuple[int, ...]) -> tuple[int, ...]:
    """`crop` must name a size from 1 to the grid's own for every axis of `grid`."""
    if len(crop) != len(grid) or any(not 1 <= c <= n for c, n in zip(crop, grid, strict=True)):
        raise ValueError(
            f"crop is {crop} for a grid of {grid}, expected sizes from 1 up to the grid's: correct the crop"
        )
    return crop


def check_axes(x: Complex, axes: int) -> None:
    """`x` must be complex64 with at least `axes` axes, and `axes` one, two or three."""
    if axes not in (1, 2, 3):
        raise ValueError(f"axes is {axes}, expected 1, 2 or 3: transform the others in a second call")
    check_complex(x, "x", axes)


def check_coils(images: Complex, maps: Complex) -> None:
    """`images` and `maps` must be complex64 [coil, *grid] of one shape."""
    check_complex(maps, "maps", 2)
    check_complex(images, "images", 2)
    if images.shape != maps.shape:
        raise ValueError(f"images have shape {images.shape} and maps {maps.shape}, expected the same: reshape one")


def check_expand(image: Complex, maps: Complex) -> None:
    """`maps` must be complex64 [coil, *grid], `image` complex64 [*grid]."""
    check_complex(maps, "maps", 2)
    check_shape(image, "image", maps.shape[1:])


def check_whiten(whitening: Complex, samples: Complex) -> None:
    """`samples` must be complex64 [..., coil, sample], `whitening` complex64 [coil out, coil]."""
    check_complex(samples, "samples", 2)
    _check_whitening(whitening, samples.shape[-2])


def check_rss(kspace: Complex, crop: tuple[int, ...], whitening: Complex | None) -> None:
    """The arguments of `Kernels.ifft_rss`: kspace complex64 [coil, z, y, x] and a crop of [z, y, x]."""
    check_complex(kspace, "kspace", 4)
    check_crop(crop, kspace.shape[1:])
    if whitening is not None:
        _check_whitening(whitening, len(kspace))


def _check_whitening(whitening: Complex, coils: int) -> None:
    check_complex(whitening, "whitening", 2)
    if whitening.ndim != 2 or whitening.shape[1] != coils:
        raise ValueError(
            f"whitening has shape {whitening.shape}, expected [coil, {coils}] for {coils} coils: remake it"
        )


def check_weights(weights: Real | None, samples: tuple[int, ...]) -> None:
    """`weights`, where there are any, must be float32 of shape `samples`."""
    if weights is not None and (weights.dtype != np.float32 or weights.shape != samples):
        raise ValueError(f"weights are {weights.dtype} {weights.shape}, expected float32 {samples}: convert them")


def check_normal(plan: Sampled, x: Complex, weights: Real | None, maps: Complex | None) -> None:
    """The arguments of `NufftPlan.normal`: weights float32 [*samples]; with maps [coil, *shape], x is [*shape]."""
    check_last(x, "x", plan.shape)
    check_weights(weights, plan.samples)
    if maps is not None:
        check_last(maps, "maps", plan.shape)
        if maps.ndim != len(plan.shape) + 1 or x.shape != plan.shape:
            raise ValueError(
                f"maps have shape {maps.shape} and x {x.shape}, expected [coil, *{plan.shape}] and {plan.shape}:"
                " pass one image with one set of maps"
            )


def check_threshold(x: Complex, threshold: float) -> None:
    """`x` must be complex64 and `threshold` a finite number, zero or more."""
    check_complex(x, "x", 0)
    if not 0 <= threshold < inf:
        raise ValueError(f"threshold is {threshold}, expected a finite number, 0 or more: correct it")


def check_wavelet(x: Complex, levels: tuple[int, ...], shift: tuple[int, ...] | None) -> tuple[int, ...]:
    """The arguments of `Kernels.wavelet`; returns the shift modulo the grid, zeros where it is None."""
    if len(levels) not in (1, 2, 3) or min(levels) < 0 or max(levels) == 0:
        raise ValueError(f"levels are {levels}, expected one for each of one to three axes, at least one above 0")
    check_complex(x, "x", len(levels))
    grid = x.shape[x.ndim - len(levels) :]
    if any(n % 2**level for n, level in zip(grid, levels, strict=True)):
        raise ValueError(
            f"the grid is {grid} for wavelet levels {levels}, expected sizes divisible by 2^level: pad it or use fewer"
        )
    return check_shift(shift, grid)


def check_low_rank(
    x: Complex, threshold: float, block: tuple[int, ...], shift: tuple[int, ...] | None
) -> tuple[int, ...]:
    """The arguments of `Kernels.low_rank`; returns the shift modulo the grid, zeros where it is None."""
    check_threshold(x, threshold)
    grid = x.shape[1:]
    if len(grid) not in (1, 2, 3) or len(block) != len(grid) or any(b < 1 for b in block):
        raise ValueError(
            f"x has shape {x.shape} and block is {block}, expected [frame, *grid] of one to three axes with a size for"
            " each: reshape x or correct block"
        )
    return check_shift(shift, grid)


def check_shift(shift: tuple[int, ...] | None, grid: tuple[int, ...]) -> tuple[int, ...]:
    """`shift` modulo `grid`, of as many axes; zeros where it is None."""
    if shift is None:
        return (0,) * len(grid)
    if len(shift) != len(grid):
        raise ValueError(f"shift is {shift} for a grid of {grid}, expected a number for each axis: correct it")
    return tuple(s % n for s, n in zip(shift, grid, strict=True))


def check_phase(x: Complex, phase: Real) -> None:
    """`phase` must be float32, and the last axes of complex64 `x` must have its shape."""
    if phase.dtype != np.float32:
        raise TypeError(f"phase has dtype {phase.dtype}, expected float32 radians: convert it first")
    check_last(x, "x", phase.shape)
