"""Every CUDA kernel compiles for every architecture without warnings or spills, and is in the stored table."""

from __future__ import annotations

import csv
import os
from concurrent.futures import ThreadPoolExecutor
from itertools import chain, product
from pathlib import Path

import pytest

from bench import compiled
from kernels.cuda import grid
from tests.cuda.shim import all_names

PIECE = 20
ROOT = Path(__file__).parents[2]
LOG = """ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function '_Z4turnv' for 'sm_90'
ptxas info    : Function properties for _Z4turnv
    16 bytes stack frame, 8 bytes spill stores, 4 bytes spill loads
ptxas info    : Used 24 registers, used 1 barriers, 8448 bytes smem
ptxas info    : Compiling entry function '_Z3padv' for 'sm_90'
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 28 registers, used 0 barriers, 384 bytes cmem[0]
"""


@pytest.fixture(scope="module")
def compiler() -> compiled.Compiler:
    found = compiled.find_compiler()
    if found is None:
        pytest.skip("neither nvcc nor nvidia-cuda-nvrtc is installed: the CUDA kernels are not compiled for a GPU")
    return found


USUAL = all_names() | grid.names((512,))  # the kernels of plans with the usual options, by file


@pytest.mark.timeout(300)
@pytest.mark.parametrize("file", USUAL)
def test_compiles_without_warnings_or_spills(compiler: compiled.Compiler, file: str) -> None:
    parts = [USUAL[file][first : first + PIECE] for first in range(0, len(USUAL[file]), PIECE)]

    def spilled(part: tuple[tuple[str, ...], str]) -> list[str]:
        return compiled.spilled(compiled.compile_file(compiler, file, *part))

    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:  # the compilers hold no lock of Python's
        assert not [*chain.from_iterable(pool.map(spilled, product(parts, compiled.ARCHITECTURES)))]


def test_a_warning_is_an_error(compiler: compiled.Compiler, tmp_path: Path) -> None:
    source = tmp_path / "own.cu"
    source.write_text("__global__ void idle(int* out) { int unused; out[0] = 0; }\n", encoding="utf-8")
    with pytest.raises(compiled.CompileError, match='variable "unused" was declared but never referenced'):
        compiler.compile(str(source), ("idle",), "sm_90")


def test_the_log_is_read() -> None:
    assert compiled.parse(LOG) == {"_Z4turnv": (24, 8448, 16, 8, 4), "_Z3padv": (28, 0, 0, 0, 0)}
    row = compiled.Compiled("fft.cu", "turn", "sm_90", *compiled.parse(LOG)["_Z4turnv"])
    assert compiled.spilled([row]) == ["turn on sm_90"]


def test_the_stored_table_has_every_kernel() -> None:
    with (ROOT / compiled.TABLE).open(encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    found = {(row["file"], row["kernel"], row["architecture"]) for row in rows}
    names = compiled.all_names()
    wanted = {(file, name, arch) for file in names for name in names[file] for arch in compiled.ARCHITECTURES}
    assert found == wanted
    assert all(row["spill_store_bytes"] == row["spill_load_bytes"] == "0" for row in rows)
