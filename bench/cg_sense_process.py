"""CG-SENSE of one frame as a whole process, from files to a file: what `bart pics` is measured against.

python -m bench.cg_sense_process FOLDER THREADS ITERATIONS      what `bench.cg_sense.write_frame` wrote → image.npy
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

import kernels
from recon.operators import nufft_sense
from recon.solve import cg


def main() -> None:
    """One frame, with plan and operators made for it."""
    folder, threads, iterations = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    points, kspace, maps = (np.load(folder / f"{name}.npy") for name in ("points", "kspace", "maps"))
    device = kernels.on("cpu", threads=threads)
    operator = nufft_sense(device, device.nufft(points, maps.shape[1:]), maps)
    np.save(folder / "image.npy", cg(operator.normal, operator.adjoint(kspace), iterations=iterations))


if __name__ == "__main__":
    main()
