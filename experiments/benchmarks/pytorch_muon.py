"""fmd's Muon in PyTorch: near-orthogonal updates of kernels, NAdam for biases, norms and embeddings.

As fmd.training.optimizers.muon has it from optax. Both begin with Nesterov's momentum of the n-th gradient g,

    m <- beta m + (1 - beta) g,    m' = beta m / (1 - beta^(n + 1)) + (1 - beta) g / (1 - beta^n).

A kernel [out, in, 3, 3] is the matrix [out, 9 in], the transpose of fmd's with its rows in another order, which the
orthogonalisation commutes with. Its update is .2 sqrt(max(out, 9 in)) times the result of five Newton-Schulz steps
X <- a X + (b A + c A^2) X, A = X X^T, from X = m' / |m'| (arXiv 2502.16982). tests/experiments/test_race.py compares
whole steps with fmd's.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

MOMENTUM, SIZE, EPSILON = 0.95, 0.2, 1e-8
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)


class Muon:
    """The optimiser of a network without attention; the learning rate is given at every step."""

    def __init__(self, network: nn.Module, b1: float = 0.9, b2: float = 0.999) -> None:
        self.kernels, self.others = split(network)
        self.momenta = [torch.zeros_like(p) for p in self.kernels]
        self.first, self.second = ([torch.zeros_like(p) for p in self.others] for _ in range(2))
        self.b1, self.b2, self.count = b1, b2, 0

    @torch.no_grad()
    def step(self, rate: float) -> None:
        self.count += 1
        ahead = nesterov(self.momenta, [p.grad for p in self.kernels], MOMENTUM, self.count)
        for kernel, momentum in zip(self.kernels, ahead, strict=True):
            matrix = momentum.flatten(1)
            update = orthogonalised(matrix).view(kernel.shape)
            kernel.sub_(update, alpha=rate * SIZE * max(matrix.shape) ** 0.5)

        gradients = [p.grad for p in self.others]
        ahead = nesterov(self.first, gradients, self.b1, self.count)
        torch._foreach_mul_(self.second, self.b2)
        torch._foreach_addcmul_(self.second, gradients, gradients, value=1 - self.b2)
        sizes = torch._foreach_sqrt(torch._foreach_div(self.second, 1 - self.b2**self.count))
        torch._foreach_add_(sizes, EPSILON)
        torch._foreach_addcdiv_(self.others, ahead, sizes, value=-rate)


def split(network: nn.Module) -> tuple[list[Tensor], list[Tensor]]:
    """The kernels of linear layers and convolutions, and all other parameters."""
    layers = [module for module in network.modules() if isinstance(module, nn.Linear | nn.Conv2d)]
    kernels = [layer.weight for layer in layers]
    taken = {id(kernel) for kernel in kernels}
    return kernels, [p for p in network.parameters() if id(p) not in taken]


def nesterov(momenta: Sequence[Tensor], gradients: Sequence[Tensor], beta: float, count: int) -> list[Tensor]:
    """The looking-ahead means of the gradients; `momenta` are changed in place."""
    torch._foreach_lerp_(momenta, gradients, 1 - beta)
    ahead = torch._foreach_mul(momenta, beta / (1 - beta ** (count + 1)))
    torch._foreach_add_(ahead, gradients, alpha=(1 - beta) / (1 - beta**count))
    return list(ahead)


def orthogonalised(matrix: Tensor) -> Tensor:
    """A matrix with its singular values near 1."""
    a, b, c = NEWTON_SCHULZ
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if tall else matrix
    x = x / (torch.linalg.matrix_norm(x) + EPSILON)
    for _ in range(5):
        square = x @ x.T
        x = torch.addmm(x, torch.addmm(square, square, square, beta=b, alpha=c), x, beta=a)
    return x.T.contiguous() if tall else x
