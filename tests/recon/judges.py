"""Independent judges: programs of others, run on the same data. Without them a test is skipped, loudly."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import h5py
import numpy as np
import pytest
from numpy.typing import NDArray


def needs(program: str, package: str) -> str:
    """The path of `program`; skips the test where it is not installed."""
    path = shutil.which(program)
    if path is None:
        pytest.skip(f"{program} is not installed: apt-get install {package}")
    return path


def shepp_logan(path: Path, *options: str) -> Path:
    """A file from ISMRMRD's own generator."""
    program = needs("ismrmrd_generate_cartesian_shepp_logan", "ismrmrd-tools")
    subprocess.run([program, *options, "-o", str(path)], check=True, capture_output=True, timeout=60)
    return path


def ismrmrd_recon(path: Path) -> NDArray[np.float32]:
    """[y, x] of ISMRMRD's own simple reconstruction, of the last repetition, which it adds to the file."""
    program = needs("ismrmrd_recon_cartesian_2d", "ismrmrd-tools")
    subprocess.run([program, str(path)], check=True, capture_output=True, timeout=60)
    with h5py.File(path, "r") as file:
        image: NDArray[np.float32] = file["dataset/cpp/data"][0, 0, 0]
    return image


class Bart:
    """BART's commands on arrays; its dimensions (x, y, z, coil, …) are [coil, z, y, x] read backwards."""

    def __init__(self, folder: Path) -> None:
        self._program = needs("bart", "bart")
        self._folder = folder
        self._count = 0

    def __call__(self, command: str, *inputs: NDArray[np.complex64]) -> NDArray[np.complex64]:
        """`command` with `inputs` given after its options; its only output."""
        names = [self.write(array) for array in inputs]
        out = self._name()
        arguments = [self._program, *command.split(), *names, out]
        environment = {"OMP_NUM_THREADS": "1", "PATH": "/usr/bin:/bin"}
        subprocess.run(arguments, check=True, capture_output=True, timeout=100, env=environment)
        return self._read(out)

    def _name(self) -> str:
        self._count += 1
        return str(self._folder / f"array{self._count}")

    def write(self, array: NDArray[np.complex64]) -> str:
        """The name of a file that holds `array`, for options that take one."""
        name = self._name()
        sizes = " ".join(str(n) for n in reversed(array.shape))
        Path(f"{name}.hdr").write_text(f"# Dimensions\n{sizes}\n", encoding="ascii")
        np.ascontiguousarray(array, np.complex64).tofile(f"{name}.cfl")
        return name

    def _read(self, name: str) -> NDArray[np.complex64]:
        line = Path(f"{name}.hdr").read_text(encoding="ascii").splitlines()[1]
        sizes = [int(n) for n in line.split()]
        while len(sizes) > 1 and sizes[-1] == 1:
            sizes.pop()
        return np.fromfile(f"{name}.cfl", np.complex64).reshape(sizes[::-1])
