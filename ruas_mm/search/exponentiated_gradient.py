"""Exponentiated gradient descent on the probabilities of candidates."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer


class ExponentiatedGradient(Optimizer):
    """Exponentiated gradient descent on the softmax of each row (GAEA; Li et al., 2021, arXiv:2004.07802).

    With theta = softmax(alpha) over the last dimension and learning rate eta, a step is

        theta_k <- theta_k exp(-eta dL/dtheta_k) / Z,    that is    alpha_k <- alpha_k - eta (dL/dalpha_k) / theta_k

    up to a constant per row, which the softmax ignores: dL/dalpha_k = theta_k (dL/dtheta_k - sum_j theta_j
    dL/dtheta_j). A candidate gains or loses by its own gradient alone, however improbable it is, so that rows become
    sparse within few steps.

    theta is the softmax at temperature 1 whatever the temperature of the slots: the loss may use any function of theta,
    and softmax(alpha / T) is one, proportional to theta^(1/T). The parameters are stored as log(theta), so they stay
    bounded. There is no weight decay and no state but the learning rate, which schedulers may change.

    Args:
        params (Iterable): Architecture parameters of shape (..., candidates), or parameter groups of them.
        lr (float): Learning rate eta, above 0 or equal to it. Defaults to 0.1, the value of the paper.
        min_probability (float): Probability below which no candidate falls, in (0, 1); it also bounds the division
            by theta_k. Defaults to 1e-6.

    Raises:
        ValueError: If an option has no such value.
    """

    def __init__(
        self, params: Iterable[Tensor] | Iterable[dict[str, Any]], lr: float = 0.1, min_probability: float = 1e-6
    ) -> None:
        if isinstance(lr, bool) or not isinstance(lr, (int, float)) or not 0 <= lr < math.inf:
            raise ValueError(f'lr of ExponentiatedGradient must be a number of at least 0, got {lr!r}.')
        if not 0 < min_probability < 1:
            raise ValueError(f'min_probability of ExponentiatedGradient must be in (0, 1), got {min_probability!r}.')
        super().__init__(params, dict(lr=lr, min_probability=min_probability))

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor] | None = None) -> Tensor | None:
        """Take one step with the gradients in ``.grad``; parameters without a gradient stay as they are.

        Args:
            closure (Callable, optional): Evaluates the loss anew and returns it.

        Returns:
            Tensor | None: What the closure returned.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            floor = group['min_probability']
            for alpha in group['params']:
                if alpha.grad is None:
                    continue
                theta = alpha.softmax(dim=-1).clamp_min(floor)
                moved = alpha - group['lr'] * alpha.grad / theta
                alpha.copy_(moved.log_softmax(dim=-1).clamp_min(math.log(floor)))
        return loss
