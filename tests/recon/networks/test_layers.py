"""The two networks and their data layer: laws that hold for any weights, judged by dense linear algebra."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import kernels
from kernels.contract import Complex, Equations
from kernels.geometry import density_pipe_menon
from recon.operators import Operator, cartesian_sense, nufft_sense
from tests.cases import noise, spokes

torch = pytest.importorskip("torch", reason="torch is not installed: pip install -e '.[learned]'")
from recon.exchange import to_array, to_tensor  # noqa: E402
from recon.networks import layer1, layer2  # noqa: E402
from recon.networks.blocks import UNet, channels_of, complex_of, pyramid  # noqa: E402
from recon.networks.consistency import Consistency  # noqa: E402
from recon.networks.measured import Measured  # noqa: E402

CPU = kernels.on("cpu")
GRID = (9, 8)
EXACT = 2e-5  # a system of condition 1/w ≤ 20 solved in single precision: 20 roundings of 72 unknowns' sums
SAME = 1e-5  # what a padded batch may change, of the largest pixel


def unit_maps(rng: np.random.Generator, coils: int) -> Complex:
    maps = noise(rng, coils, *GRID)
    return maps / np.linalg.norm(maps, axis=0)


def cartesian(rng: np.random.Generator) -> Operator:
    mask = np.zeros((GRID[0], 1), np.float32)
    mask[::2] = 1
    return cartesian_sense(CPU, unit_maps(rng, 3), mask)


def radial(rng: np.random.Generator) -> Operator:
    plan = CPU.nufft(spokes(11, 16), GRID, eps=1e-5)
    return nufft_sense(CPU, plan, unit_maps(rng, 3), density=density_pipe_menon(CPU, spokes(11, 16), GRID))


def measured(operator: Operator, rhs: Complex) -> Measured:
    return Measured(Equations(operator.normal, (), ("test", id(operator))), rhs, 2.0)


def dense(operator: Operator) -> Any:
    """The normal operator as a matrix [pixel, pixel], by columns."""
    pixels = GRID[0] * GRID[1]
    units = np.eye(pixels, dtype=np.complex64).reshape(pixels, *GRID)
    return np.stack([operator.normal(unit).ravel() for unit in units], axis=1).astype(np.complex128)


def randomised(network: Any, *, seed: int = 0) -> Any:
    """The network with weights drawn at random, its last convolutions too, which begin at zero."""
    torch.manual_seed(seed)
    for parameter in network.parameters():
        if parameter.ndim == 4:
            torch.nn.init.normal_(parameter, std=1.4 / parameter[0].numel() ** 0.5)
    return network


def test_arrays_and_tensors_share_their_memory() -> None:
    array = noise(np.random.default_rng(0), 3, 4)
    tensor = to_tensor(array)
    tensor[1, 2] = 5 + 6j
    assert array[1, 2] == 5 + 6j
    to_array(tensor)[0, 0] = 7
    assert array[0, 0] == 7


def test_what_may_not_be_written_to_is_copied() -> None:
    array = np.arange(4, dtype=np.float32)
    array.flags.writeable = False
    to_tensor(array)[0] = 9
    to_tensor(np.arange(4, dtype=np.float32)[::-1])
    assert array[0] == 0


def test_channels_are_the_parts_of_a_complex_image() -> None:
    image = to_tensor(noise(np.random.default_rng(1), 2, 3, 4))
    channels = channels_of(image)
    assert channels.shape == (2, 2, 3, 4)
    assert torch.equal(channels[:, 1], image.imag)
    assert torch.equal(complex_of(channels), image)


@pytest.mark.parametrize("make", [cartesian, radial])
def test_the_data_layer_solves_its_system(make: Any) -> None:
    rng = np.random.default_rng(2)
    operators = [make(rng), make(rng)]
    rhs, z, weight = noise(rng, 2, *GRID), noise(rng, 2, *GRID), np.array([0.05, 0.4], np.float32)
    data = Consistency(CPU, [measured(*pair) for pair in zip(operators, rhs, strict=True)], 60)
    found = to_array(data(to_tensor(z), to_tensor(weight)))
    for operator, right, image, w, solution in zip(operators, rhs, z, weight, found, strict=True):
        system = dense(operator) + w * np.eye(image.size)
        exact = np.linalg.solve(system, (right + w * image).ravel().astype(np.complex128)).reshape(GRID)
        assert np.linalg.norm(solution - exact) <= EXACT * np.linalg.norm(exact)


@pytest.mark.parametrize("make", [cartesian, radial])
def test_its_gradients_are_those_of_the_dense_solution(make: Any) -> None:
    rng = np.random.default_rng(3)
    operator, rhs, z = make(rng), noise(rng, *GRID), noise(rng, *GRID)
    data = Consistency(CPU, [measured(operator, rhs)], 60)
    goal = torch.from_numpy(noise(rng, *GRID)[None])

    image, weight = torch.from_numpy(z[None]).requires_grad_(), torch.tensor([0.1], requires_grad=True)
    ((data(image, weight) - goal).abs() ** 2).sum().backward()

    exact, exact_weight = (
        torch.from_numpy(z).to(torch.complex128).requires_grad_(),
        torch.tensor(0.1, dtype=torch.float64),
    )
    exact_weight.requires_grad_()
    system = torch.from_numpy(dense(operator)) + exact_weight * torch.eye(z.size)
    solution = torch.linalg.solve(system, torch.from_numpy(rhs).ravel() + exact_weight * exact.ravel())
    ((solution - goal.ravel()).abs() ** 2).sum().backward()
    assert (image.grad[0] - exact.grad).norm() <= EXACT * exact.grad.norm()
    assert abs(weight.grad[0] - exact_weight.grad) <= EXACT * 20 * abs(exact_weight.grad)  # its terms cancel


def test_an_image_that_fits_its_data_stays() -> None:
    rng = np.random.default_rng(4)
    operator, image = cartesian(rng), noise(rng, *GRID)
    data = Consistency(CPU, [measured(operator, operator.normal(image))], 8)
    found = to_array(data(to_tensor(image[None]), torch.tensor([0.3])))[0]
    assert np.linalg.norm(found - image) <= 1e-5 * np.linalg.norm(image)


def test_a_network_of_zeros_is_the_damped_solution_again_and_again() -> None:
    rng = np.random.default_rng(5)
    operator = cartesian(rng)
    data = Consistency(CPU, [measured(operator, noise(rng, *GRID))], 40)
    network = layer1.Unrolled(layer1.Design(cascades=2, width=4, levels=1, iterations=40))
    x = data(torch.zeros(1, *GRID, dtype=torch.complex64), torch.tensor([0.05]))
    for _ in range(2):
        x = data(x, torch.tensor([0.1]))
    with torch.no_grad():
        network.trust[:, 1:] = 0
        assert (network(data, torch.ones(1, 1, *GRID)) - x).norm() <= EXACT * x.norm()


def test_scaling_image_and_noise_scales_the_output() -> None:
    rng = np.random.default_rng(6)
    network = randomised(layer2.Enhance(layer2.Design(width=4, levels=2)))
    image, g, inside = to_tensor(noise(rng, 2, *GRID)), torch.rand(2, 1, *GRID) + 1, torch.ones(2, 1, *GRID)
    with torch.no_grad():
        once, four = network(image, g, inside), network(4 * image, 4 * g, inside)
    assert (once - image).norm() > 0.01 * image.norm()
    assert torch.equal(four, 4 * once)  # a power of two: not one bit differs


@pytest.mark.parametrize("grid", [(9, 8), (5, 13), (1, 1)], ids=str)
def test_padding_and_batch_mates_change_no_pixel(grid: tuple[int, int]) -> None:
    rng = np.random.default_rng(7)
    unet = randomised(UNet(3, width=4, levels=2))
    alone = torch.from_numpy(rng.standard_normal((1, 3, *grid), np.float32))
    batch, inside = torch.zeros(2, 3, 18, 21), torch.zeros(2, 1, 18, 21)
    batch[1] = torch.from_numpy(100 * rng.standard_normal((3, 18, 21), np.float32))
    inside[1] = 1
    batch[0, :, : grid[0], : grid[1]], inside[0, :, : grid[0], : grid[1]] = alone[0], 1
    with torch.no_grad():
        expected, found = unet(alone, torch.ones(1, 1, *grid))[0], unet(batch, inside)[0]
    assert (found[:, : grid[0], : grid[1]] - expected).abs().max() <= SAME * expected.abs().max()
    assert not found[:, grid[0] :].any() and not found[..., grid[1] :].any()


def test_a_coarse_cell_with_any_of_the_image_is_in() -> None:
    shapes = [tuple(mask.shape) for mask in pyramid(torch.ones(1, 1, 9, 8), 2)]
    assert shapes == [(1, 1, 12, 8), (1, 1, 6, 4), (1, 1, 3, 2)]
    assert pyramid(torch.ones(1, 1, 9, 8), 2)[1][0, 0, :, 0].tolist() == [1, 1, 1, 1, 1, 0]


def test_a_strength_is_a_part_of_the_whole_correction() -> None:
    rng = np.random.default_rng(8)
    network = randomised(layer2.Enhance(layer2.Design(width=4, levels=1)))
    image, ones = to_tensor(noise(rng, 1, *GRID)), torch.ones(1, 1, *GRID)
    with torch.no_grad():
        whole = network(image, ones, ones)
        for part in layer2.STRENGTHS.values():
            mixed = (1 - part) * image + part * whole
            assert (network(image, ones, ones, strength=part) - mixed).abs().max() <= 1e-6 * whole.abs().max()
        assert torch.equal(network(image, ones, ones, strength=layer2.STRENGTHS["off"]), image)
    assert sorted(layer2.STRENGTHS, key=lambda name: layer2.STRENGTHS[name]) == ["off", "low", "medium", "high"]


def test_each_of_a_batch_is_as_if_alone() -> None:
    rng = np.random.default_rng(9)
    batch = [measured(cartesian(rng), 10 * noise(rng, *GRID)) for _ in range(2)]
    network = randomised(layer1.Unrolled(layer1.Design(cascades=2, width=4, levels=1, iterations=8)))
    ones = torch.ones(2, 1, *GRID)
    with torch.no_grad():
        both = network(Consistency(CPU, batch, 8), ones)
        alone = network(Consistency(CPU, batch[1:], 8), ones[1:])
    assert (both[1:] - alone).abs().max() <= SAME * alone.abs().max()
