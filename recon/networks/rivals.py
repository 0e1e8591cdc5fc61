"""The conventional methods that layer 1 is compared with, on the same data: each with the settings to choose among."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

from kernels.contract import Complex, Kernels
from recon.networks import metrics
from recon.networks.examples import Undersampled, measured
from recon.networks.measured import Measured
from recon.operators import regularised
from recon.prox import sparse_wavelets
from recon.solve import Composite, fista

Setting = tuple[float, ...]
Run = Callable[[Kernels, Measured, Setting], Complex]
WAVELET_ITERATIONS = 60


def zero_filled(_: Kernels, data: Measured, __: Setting) -> Complex:
    """Coils combined, and zeros for what was not measured."""
    return data.rhs


def cg_sense(kernels: Kernels, data: Measured, setting: Setting) -> Complex:
    """`setting` is iterations and λ (doi:10.1002/mrm.1241)."""
    iterations, strength = setting
    return kernels.cg(regularised(data.equations, strength), data.rhs, iterations=int(iterations))


def l1_wavelet(kernels: Kernels, data: Measured, setting: Setting) -> Complex:
    """`setting` is the threshold in units of the noise (doi:10.1002/mrm.21391)."""
    prox = sparse_wavelets(kernels, setting[0], data.rhs.shape)
    problem = Composite(lambda x: data.equations.normal(x, *data.equations.operands), data.rhs, prox)
    return fista(problem, step=1.0, iterations=WAVELET_ITERATIONS)


RIVALS: Mapping[str, tuple[Run, tuple[Setting, ...]]] = MappingProxyType(
    {
        "zero-filled": (zero_filled, ((),)),
        "cg-sense": (cg_sense, tuple((n, s) for n in (4, 8, 16, 32) for s in (0.0, 0.01, 0.05, 0.1))),
        "l1-wavelet": (l1_wavelet, ((0.25,), (0.5,), (1.0,), (2.0,), (4.0,))),
    }
)


def tuned(method: str, kernels: Kernels, chosen: Sequence[Undersampled]) -> Setting:
    """The setting with the best mean PSNR on examples to choose by."""
    run, settings = RIVALS[method]
    data = [measured(example, kernels) for example in chosen]

    def quality(setting: Setting) -> float:
        found = [kernels.to_host(run(kernels, one, setting)) for one in data]
        each = [metrics.errors(image, example.truth) for image, example in zip(found, chosen, strict=True)]
        return metrics.mean_of(each)["psnr_db"]

    return max(settings, key=quality) if len(settings) > 1 else settings[0]
