"""ESPIRiT as a whole process, as `bart ecalib` is one: `python -m bench.espirit_process IN OUT`, on BART's files.

Imports no more than it needs: starting the interpreter is a good part of what is measured.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from kernels.contract import Complex
from recon.espirit import espirit

CENTRE = 24


def middle_of(kspace: Complex) -> Complex:
    """The central samples of kspace [coil, 1, ky, kx], on their own."""
    y, x = (slice(n // 2 - CENTRE // 2, n // 2 + CENTRE // 2) for n in kspace.shape[2:])
    return np.ascontiguousarray(kspace[:, :, y, x])


def write_cfl(path: Path, array: Complex) -> None:
    """BART's file format: its dimensions are ours read backwards."""
    sizes = " ".join(str(n) for n in reversed(array.shape))
    path.with_suffix(".hdr").write_text(f"# Dimensions\n{sizes}\n", encoding="ascii")
    np.ascontiguousarray(array, np.complex64).tofile(path.with_suffix(".cfl"))


def read_cfl(path: Path) -> Complex:
    """An array that `write_cfl` wrote."""
    sizes = path.with_suffix(".hdr").read_text(encoding="ascii").splitlines()[1].split()
    return np.fromfile(path.with_suffix(".cfl"), np.complex64).reshape([int(n) for n in reversed(sizes)])


def main(source: Path, target: Path) -> None:
    """A file of k-space in, a file of maps out."""
    kspace = read_cfl(source)
    _, z, y, x = kspace.shape
    write_cfl(target, espirit(middle_of(kspace), (z, y, x))[0][0])


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
