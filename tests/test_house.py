"""The house rules that a machine can check: who may import what, and what the smaller installations need."""

from __future__ import annotations

import ast
import importlib.util
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PACKAGES = ("kernels", "recon", "cluster", "bench")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

# package -> the only files (or folders, ending in /) that may import it
ONLY_IN = {
    "cupy": ("kernels/cuda/", "recon/exchange.py"),
    "ray": ("cluster/ray_workers.py",),
    "prometheus_client": ("cluster/metrics.py",),
    "psycopg": ("cluster/postgres.py",),
    "fastapi": ("cluster/gateway/http/",),
    "starlette": ("cluster/gateway/http/",),
    "uvicorn": ("cluster/gateway/http/",),
    "torch": ("recon/networks/", "recon/exchange.py", "bench/speed_sides.py"),  # the last runs where MRpro is installed
}


def sources() -> Iterator[Path]:
    """Every Python file of the packages, relative to the repository."""
    for package in PACKAGES:
        yield from (path.relative_to(ROOT) for path in sorted((ROOT / package).rglob("*.py")))


def imported(source: str) -> set[str]:
    """Top-level names that `source` imports anywhere: at the top, inside functions, or by `import_module("name")`."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names=aliases):
                names.update(alias.name for alias in aliases)
            case ast.ImportFrom(module=str(module), level=0):
                names.add(module)
            case ast.Call(
                func=ast.Name(id=function) | ast.Attribute(attr=function), args=[ast.Constant(str(name)), *_]
            ):
                if function in ("import_module", "__import__"):
                    names.add(name)
    return {name.partition(".")[0] for name in names}


@pytest.mark.parametrize(
    "source",
    [
        "import ray",
        "import ray.util as u",
        "from ray.util import state",
        "def f():\n    import ray",
        "importlib.import_module('ray.data')",
        "if TYPE_CHECKING:\n    from ray import ObjectRef",
    ],
)
def test_the_reader_of_imports_sees_every_form(source: str) -> None:
    assert imported(source) == {"ray"}


@pytest.mark.parametrize("package", ONLY_IN)
def test_only_the_named_files_import(package: str) -> None:
    offenders = [
        str(path)
        for path in sources()
        if package in imported((ROOT / path).read_text(encoding="utf-8"))
        and not path.as_posix().startswith(ONLY_IN[package])
    ]
    assert not offenders, f"{package} is imported by {offenders}, only {ONLY_IN[package]} may"


# Runs in a fresh interpreter: argv[1] names the distributions that may be imported, argv[2] the modules to import.
ISOLATED = """
import importlib, importlib.metadata, sys
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

def closure(names):
    found = set()
    while names:
        name = canonicalize_name(names.pop())
        if name in found:
            continue
        found.add(name)
        try:
            wanted = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue
        for text in wanted:
            requirement = Requirement(text)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                names.append(requirement.name)
    return found

allowed = closure(sys.argv[1].split(","))
tops = {top for top, owners in importlib.metadata.packages_distributions().items()
        if any(canonicalize_name(owner) in allowed for owner in owners)}
tops |= set(sys.stdlib_module_names) | {"kernels", "recon", "cluster", "bench"}

class Blocker:
    def find_spec(self, name, path=None, target=None):
        ours = name.partition(".")[0] in tops or name.startswith("_sysconfigdata")  # the standard library's, unlisted
        if not ours and "." not in name:
            raise ModuleNotFoundError(f"No module named {name!r} in this installation", name=name)
        return None

for name in list(sys.modules):
    if name.partition(".")[0] not in tops:
        del sys.modules[name]
sys.meta_path.insert(0, Blocker())
for module in sys.argv[2].split(","):
    importlib.import_module(module)
"""


def import_with_only(distributions: list[str], modules: list[str]) -> subprocess.CompletedProcess[str]:
    """Import `modules` in a new interpreter where only `distributions` and what they require can be imported."""
    command = [sys.executable, "-c", ISOLATED, ",".join(distributions), ",".join(modules)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def modules_under(*packages: str) -> list[str]:
    """Dotted names of all modules of `packages`."""
    paths = (path.with_suffix("") for path in sources() if path.parts[0] in packages)
    return [".".join(path.parts).removesuffix(".__init__") for path in paths]


def test_the_isolated_interpreter_does_block() -> None:
    result = import_with_only(["numpy"], ["h5py"])
    assert result.returncode != 0
    assert "No module named 'h5py' in this installation" in result.stderr


def test_the_client_needs_only_what_the_readme_names() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    section = readme[readme.index("**Only the client**") :]
    (named,) = re.findall(r"^pip install ((?:[a-z0-9]+ ?)+)$", section, re.MULTILINE)
    assert named.split()
    result = import_with_only(named.split(), ["cluster.client"])
    assert result.returncode == 0, result.stderr


def worker_modules() -> list[str]:
    """What a CUDA worker imports: all below the cluster but CPU kernels, slow twins and what needs the GPU itself."""
    heavy = ("kernels.cpu", "kernels.reference", "kernels.cuda", "recon.networks")
    return [name for name in modules_under("kernels", "recon") if not name.startswith(heavy)] + ["cluster.worker"]


def test_a_cuda_worker_needs_only_numpy_h5py_cupy_torch() -> None:
    result = import_with_only(["numpy", "h5py", "cupy-cuda13x", "torch"], worker_modules())
    assert result.returncode == 0, result.stderr


@pytest.mark.gpu
def test_a_cuda_worker_imports_beside_a_real_gpu() -> None:
    modules = [*worker_modules(), *(name for name in modules_under("kernels") if name.startswith("kernels.cuda"))]
    owners = packages_distributions().get("cupy", [])  # CuPy has a name for each version of CUDA
    result = import_with_only(["numpy", "h5py", "torch", *owners], ["cupy", *modules])
    assert result.returncode == 0, result.stderr


def test_what_networks_learn_from_is_made_without_torch() -> None:
    modules = [
        f"recon.networks.{name}" for name in ("sources", "pictures", "examples", "measured", "metrics", "rivals")
    ]
    result = import_with_only(["numpy", "scipy", "h5py"], [*modules, "recon.exchange"])
    assert result.returncode == 0, result.stderr


def test_each_subcommand_is_a_module_with_a_parser_and_a_run() -> None:
    for name, module in PROJECT["entry-points"]["recon_cluster.commands"].items():
        spec = importlib.util.find_spec(module)
        assert spec is not None and spec.origin, f"subcommand {name} names {module}, which does not exist"
        tree = ast.parse(Path(spec.origin).read_text(encoding="utf-8"))
        defined = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
        assert {"add_parser", "run"} <= defined, f"{module} defines {sorted(defined)}, wanted add_parser and run"


def test_each_direct_dependency_is_pinned_inside_its_range() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = {
        canonicalize_name(name): version
        for name, _, version in (line.partition("==") for line in lines if line and not line.startswith("#"))
    }
    extras = PROJECT["optional-dependencies"].values()
    for text in [*PROJECT["dependencies"], *(text for extra in extras for text in extra)]:
        wanted = Requirement(text)
        if wanted.name != PROJECT["name"]:
            assert wanted.specifier.contains(pins[canonicalize_name(wanted.name)]), text
