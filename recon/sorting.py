"""Readouts sorted by motion: joined, picked, and lines that were measured several times made into one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from recon.scan import Readouts

Index = NDArray[np.int64]
Weights = NDArray[np.float64]


def joined(runs: Sequence[Readouts]) -> Readouts:
    """`runs` as one; a view where there is only one."""
    if len(runs) == 1:
        return runs[0]
    paths = [run.trajectory for run in runs if run.trajectory is not None]
    return Readouts(
        np.concatenate([run.head for run in runs]),
        np.concatenate([run.samples for run in runs]),
        np.concatenate(paths) if len(paths) == len(runs) else None,
    )


def taken(run: Readouts, rows: Index) -> Readouts:
    """The readouts `rows` of `run`."""
    return Readouts(run.head[rows], run.samples[rows], None if run.trajectory is None else run.trajectory[rows])


def lines_of(run: Readouts, rows: Index) -> Index:
    """Numbers [row] of the lines of k-space that `rows` of `run` measure, equal where both encoding steps are."""
    steps = np.stack([run.head[name][rows] for name in ("kspace_encode_step_1", "kspace_encode_step_2")], axis=1)
    return np.unique(steps, axis=0, return_inverse=True)[1].ravel()


def share(line: Index, away: Weights, weights: Weights) -> int:
    """Give each `line` that has no weight its readout least far `away` [row]; returns how many they are."""
    bare = np.flatnonzero(np.bincount(line, weights) == 0)
    for number in bare.tolist():
        places = np.flatnonzero(line == number)
        weights[places[away[places].argmin()]] = 1
    return len(bare)


def weighted(run: Readouts, rows: Index, line: Index, weights: Weights) -> Readouts:
    """One readout for each `line` of `rows`: the mean of its own with `weights` [row]."""
    places = np.flatnonzero(weights)
    places = places[np.argsort(line[places], kind="stable")]
    first = np.flatnonzero(np.r_[True, np.diff(line[places]) > 0])
    part = (weights[places] / np.bincount(line, weights)[line[places]]).astype(np.float32)
    samples = np.add.reduceat(run.samples[rows[places]] * part[:, None, None], first, axis=0)
    return Readouts(run.head[rows[places[first]]], samples.astype(np.complex64, copy=False))
