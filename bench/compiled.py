"""Compile every CUDA kernel for every architecture and table what it takes: `python -m bench.compiled`.

By nvcc where it is on PATH or in /usr/local/cuda, else by NVRTC's Python wheel (nvidia-cuda-nvrtc); no GPU is needed.
Warnings are errors. Registers and static shared memory are the compiler's; a spill makes the command fail.
"""

from __future__ import annotations

import argparse
import csv
import ctypes
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

from kernels.cuda import cg, coils, fft, grid, nufft_steps, prox, wavelet
from kernels.cuda._load import OPTIONS, read_source

ARCHITECTURES = ("sm_80", "sm_90", "sm_100")
TABLE = Path("bench/results/cuda-compiled.csv")
NVCC = Path("/usr/local/cuda/bin/nvcc")
ENTRY = re.compile(r"Compiling entry function '(\S+)' for '(\S+)'")
SPILLS = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
USED = re.compile(r"Used (\d+) registers(?:.*?(\d+) bytes smem)?")


@dataclass(frozen=True, slots=True)
class Compiled:
    """What one kernel takes on one architecture."""

    file: str
    kernel: str
    architecture: str
    registers: int  # per thread
    static_shared_bytes: int  # per block, without the dynamic ones that the launch asks for
    stack_bytes: int
    spill_store_bytes: int
    spill_load_bytes: int


class CompileError(RuntimeError):
    """The compiler refused a file; the message is its own."""


class Compiler(Protocol):
    """Turns the kernels `names` of a file into machine code for one architecture."""

    def compile(self, file: str, names: Sequence[str], architecture: str) -> tuple[str, Mapping[str, str]]:
        """What ptxas said, and the name of each kernel by its symbol; raises CompileError."""
        ...


def all_names() -> dict[str, tuple[str, ...]]:
    """Every kernel that the wrappers may ask for, by file."""
    fixed = fft.NAMES | cg.NAMES | coils.NAMES | prox.NAMES | wavelet.NAMES
    return fixed | nufft_steps.names() | grid.names(grid.fused_lengths())


def find_compiler() -> Compiler | None:
    """nvcc, or NVRTC, or None where neither is installed."""
    nvcc = shutil.which("nvcc") or (str(NVCC) if NVCC.exists() else None)
    if nvcc is not None:
        return Nvcc(nvcc)
    library = find_nvrtc()
    return None if library is None else Nvrtc(library)


def find_nvrtc() -> Path | None:
    """NVRTC's library in its wheel, None without one."""
    spec = find_spec("nvidia")
    folders = spec.submodule_search_locations if spec is not None else None
    found = (path for folder in folders or () for path in sorted(Path(folder).glob("*/lib/libnvrtc.so.*")))
    return next((path for path in found if "builtins" not in path.name), None)


class Nvcc:
    """CUDA's own compiler driver; binutils' c++filt reads its symbols."""

    def __init__(self, path: str) -> None:
        self.path = path

    def compile(self, file: str, names: Sequence[str], architecture: str) -> tuple[str, Mapping[str, str]]:
        """See `Compiler.compile`."""
        addresses = ", ".join(f"reinterpret_cast<const void*>(&{name})" for name in names)
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder) / Path(file).name
            source.write_text(f"{read_source(file)}\nconst void* kernels[] = {{{addresses}}};\n", encoding="utf-8")
            options = (*OPTIONS, "-cubin", f"-arch={architecture}", "-Werror", "all-warnings", "-Xptxas", "-v")
            command = [self.path, *options, str(source), "-o", f"{folder}/out.cubin"]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise CompileError(f"{file} for {architecture}:\n{done.stdout}{done.stderr}")
        symbols = [match[1] for match in ENTRY.finditer(done.stderr)]
        return done.stderr, dict(zip(symbols, map(name_of, demangle(symbols)), strict=True))


def demangle(symbols: Iterable[str]) -> list[str]:
    """C++ declarations of `symbols`."""
    text = "\n".join(symbols)
    return subprocess.run(["c++filt"], input=text, capture_output=True, text=True, check=True).stdout.splitlines()


def name_of(declaration: str) -> str:
    """The name expression in a kernel's declaration."""
    return declaration.partition("(")[0].removeprefix("void ")


class Nvrtc:
    """The compiler that CuPy uses, through its C interface."""

    def __init__(self, library: Path) -> None:
        self._library = ctypes.CDLL(str(library))

    def compile(self, file: str, names: Sequence[str], architecture: str) -> tuple[str, Mapping[str, str]]:
        """See `Compiler.compile`."""
        program = ctypes.c_void_p()
        text = read_source(file).encode()
        self._call("nvrtcCreateProgram", ctypes.byref(program), text, file.encode(), 0, None, None)
        try:
            for name in names:
                self._call("nvrtcAddNameExpression", program, name.encode())
            options = [*OPTIONS, f"-arch={architecture}", "-Werror=all-warnings", "--ptxas-options=-v"]
            array = (ctypes.c_char_p * len(options))(*map(str.encode, options))
            refused = self._library.nvrtcCompileProgram(program, len(options), array)
            log = self._log(program)
            if refused:
                raise CompileError(f"{file} for {architecture}:\n{log}")
            return log, {self._symbol(program, name): name for name in names}
        finally:
            self._call("nvrtcDestroyProgram", ctypes.byref(program))

    def _log(self, program: ctypes.c_void_p) -> str:
        size = ctypes.c_size_t()
        self._call("nvrtcGetProgramLogSize", program, ctypes.byref(size))
        text = ctypes.create_string_buffer(size.value)
        self._call("nvrtcGetProgramLog", program, text)
        return text.value.decode()

    def _symbol(self, program: ctypes.c_void_p, name: str) -> str:
        symbol = ctypes.c_char_p()
        self._call("nvrtcGetLoweredName", program, name.encode(), ctypes.byref(symbol))
        return (symbol.value or b"").decode()

    def _call(self, function: str, *arguments: object) -> None:
        status = getattr(self._library, function)(*arguments)
        if status:
            raise CompileError(f"{function} returned {status}")


def compile_file(compiler: Compiler, file: str, names: Sequence[str], architecture: str) -> list[Compiled]:
    """What the kernels `names` of `file` take; raises CompileError, also where the log does not have one."""
    log, kernels = compiler.compile(file, names, architecture)
    found = {kernels[symbol]: parsed for symbol, parsed in parse(log).items() if symbol in kernels}
    missing = sorted(set(names) - set(found))
    if missing:
        raise CompileError(f"{file} for {architecture}: the compiler said nothing of {missing}")
    return [Compiled(file, name, architecture, *found[name]) for name in names]


def parse(log: str) -> dict[str, tuple[int, int, int, int, int]]:
    """(registers, static shared, stack, spill stores, spill loads) by symbol, from what `ptxas -v` says."""
    found = {}
    sections = ENTRY.split(log)[1:]
    for symbol, section in zip(sections[::3], sections[2::3], strict=True):
        spills, used = SPILLS.search(section), USED.search(section)
        if spills and used:
            stack, stores, loads = map(int, spills.groups())
            found[symbol] = (int(used[1]), int(used[2] or 0), stack, stores, loads)
    return found


def spilled(rows: Iterable[Compiled]) -> list[str]:
    """The kernels that spill registers to memory."""
    return [f"{row.kernel} on {row.architecture}" for row in rows if row.spill_store_bytes or row.spill_load_bytes]


def write_table(rows: Sequence[Compiled], path: Path) -> None:
    """Write `rows` as CSV."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, [field.name for field in fields(Compiled)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(row) for row in rows)


def summary(rows: Sequence[Compiled]) -> str:
    """A line per file: how many kernels, and the most that one takes."""
    lines = []
    for file in dict.fromkeys(row.file for row in rows):
        of_file = [row for row in rows if row.file == file]
        registers, shared = max(r.registers for r in of_file), max(r.static_shared_bytes for r in of_file)
        kernels = len({row.kernel for row in of_file})
        lines.append(f"{file:16} {kernels:4} kernels, up to {registers} registers, {shared} bytes static shared memory")
    return "\n".join(lines)


def main(arguments: Sequence[str]) -> int:
    """Compile, write the table; 1 where a kernel spills, 2 without a compiler."""
    parser = argparse.ArgumentParser(prog="python -m bench.compiled", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--csv", type=Path, default=TABLE, metavar="FILE", help="where the table goes")
    path: Path = parser.parse_args(arguments).csv
    compiler = find_compiler()
    if compiler is None:
        print("no CUDA compiler here, one is needed: install nvcc, or the package nvidia-cuda-nvrtc", file=sys.stderr)
        return 2
    rows = [
        row
        for file, names in all_names().items()
        for architecture in ARCHITECTURES
        for row in compile_file(compiler, file, names, architecture)
    ]
    write_table(rows, path)
    print(summary(rows))
    for kernel in spilled(rows):
        print(f"spills registers: {kernel}", file=sys.stderr)
    return int(bool(spilled(rows)))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
