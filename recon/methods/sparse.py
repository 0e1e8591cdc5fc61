"""`l1-wavelet` and `tv`: undersampled k-space whose image is sparse in a sense (doi:10.1002/mrm.21391), by FISTA."""

from __future__ import annotations

from collections.abc import Callable
from math import sqrt

from kernels.contract import Complex, Kernels
from recon.methods import cg_sense
from recon.methods.grids import resize, target_of, voxels
from recon.methods.images import image_of
from recon.methods.method import Method, Workbench, single_slices
from recon.methods.problem import Problem, problem_of
from recon.prox import TotalVariation, noise_of, sparse_wavelets
from recon.recipe import Recipe
from recon.scan import Calibration, Encoding, Frame, Image
from recon.solve import Composite, Prox, fista, largest_eigenvalue

USUAL_ITERATIONS = 30
Prior = Callable[[Problem, float, Kernels], Prox]


def wavelets(problem: Problem, strength: float, kernels: Kernels) -> Prox:
    """The prox of strength · ‖wavelet details of the image‖₁."""
    return sparse_wavelets(kernels, strength, problem.rhs.shape[-problem.axes :])


def variation(problem: Problem, strength: float, _: Kernels) -> Prox:
    """The prox of strength times the image's total variation."""
    return TotalVariation(strength, problem.axes)


def _run(frame: Frame, calibration: Calibration, recipe: Recipe, workbench: Workbench, *, prior: Prior) -> list[Image]:
    """One image; the strength is in units of the noise, which the noise scan has made 1, or which is estimated."""
    target, kernels = target_of(frame.encoding, oversampling=recipe.text("oversampling")), workbench.kernels
    problem = problem_of(frame, target, calibration, recipe, workbench)
    noise = 1 / sqrt(frame.averages) if calibration.whitening is not None else _noise(problem, kernels)
    step = 1.0 if problem.bounded else 1 / (largest_eigenvalue(problem.normal, problem.rhs) or 1.0)
    found = fista(
        Composite(problem.normal, problem.rhs, prior(problem, noise * recipe.number("strength"), kernels)),
        step=step,
        iterations=int(recipe.number("iterations")),
        tolerance=recipe.number("tolerance"),
        start=problem.rhs,
    )
    if recipe["last_step"] == "data":
        found = towards_data(problem, found, step)
    return [image_of(frame, resize(problem.pixels(found), target.shape), target, recipe=recipe)]


def towards_data(problem: Problem, image: Complex, step: float) -> Complex:
    """`image` after one more gradient of the data alone: less of what a strong prior shrank, and more of the noise."""
    return image - step * (problem.normal(image) - problem.rhs)


def _noise(problem: Problem, kernels: Kernels) -> float:
    """σ of the samples' noise: the right side has that of the measured lines only."""
    return noise_of(kernels, problem.rhs, problem.axes) / float(problem.share**0.5)


def run_wavelet(frame: Frame, calibration: Calibration, recipe: Recipe, workbench: Workbench) -> list[Image]:
    """One image with few wavelet details; raises ScanError where the centre of k-space is too small for maps."""
    return _run(frame, calibration, recipe, workbench, prior=wavelets)


def run_variation(frame: Frame, calibration: Calibration, recipe: Recipe, workbench: Workbench) -> list[Image]:
    """One image with little total variation; raises ScanError where the centre of k-space is too small for maps."""
    return _run(frame, calibration, recipe, workbench, prior=variation)


def bytes_needed(encoding: Encoding, coils: int) -> int:
    """As `cg-sense`, and some twenty arrays of the image's size: iterates, details, and the dual of total variation."""
    return cg_sense.bytes_needed(encoding, coils) + 160 * voxels(encoding)


def cost(encoding: Encoding, coils: int) -> float:
    """As `cg-sense` with more iterations, and a prior in each."""
    return (USUAL_ITERATIONS / cg_sense.USUAL_ITERATIONS) * cg_sense.cost(encoding, coils) + 3e-5 * voxels(encoding)


L1_WAVELET = Method("l1-wavelet", run_wavelet, bytes_needed, cost, calibration=True, check=single_slices("l1-wavelet"))
TV = Method("tv", run_variation, bytes_needed, cost, calibration=True, check=single_slices("tv"))
