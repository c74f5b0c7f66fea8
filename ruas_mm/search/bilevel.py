"""The bilevel architecture gradient of the cooperative search."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

Loss = Callable[[], Tensor]
Average = Callable[[list[Tensor]], list[Tensor]]


def architecture_gradient(
    train_loss: Loss,
    val_loss: Loss,
    weights: Sequence[Tensor],
    alphas: Sequence[Tensor],
    *,
    virtual_lr: float,
    order: int = 2,
    r: float = 1e-2,
    extra_loss: Loss | None = None,
    beta: float = 0.0,
    average: Average = lambda gradients: gradients,
) -> list[Tensor]:
    """Differentiate the validation loss, after one virtual training step, with respect to the architecture.

    With xi the virtual learning rate, w' = w - xi d, d the training gradient, v the gradient of the validation loss at
    w' with respect to the weights, and eps = r / ||v|| over all weights:

        g = grad_a L_val(w', a) - xi [grad_a L_train(w + eps v, a) - grad_a L_train(w - eps v, a)] / (2 eps)
            + beta grad_a L_extra(w, a)

    The bracket is the product of the mixed second derivative with v, by central differences: its error is of order
    eps^2, and the smaller eps, the more rounding it carries. Sources: paper §4.2 and Algorithm 1, METHOD §7; the
    finite difference is that of DARTS.

    Args:
        train_loss (Callable): Returns the training loss, a scalar, at the current values of weights and alphas. Called
            at three places, so it must mean the same batch each time.
        val_loss (Callable): Returns the validation loss alike.
        weights (Sequence[Tensor]): Parameters that the virtual step moves, each requiring a gradient.
        alphas (Sequence[Tensor]): Architecture parameters, whether or not they require a gradient.
        virtual_lr (float): xi, at least 0.
        order (int): 2, or 1 for xi = 0: the validation gradient alone.
        r (float): Length of the finite difference's step, above 0.
        extra_loss (Callable, optional): Returns the loss of the beta term, at the weights as they are.
        beta (float): Weight of that term; 0 leaves it out, and it is not computed.
        average (Callable): Takes every list of gradients and returns their means over the processes that share the
            batch; the virtual step then is that of the whole batch. By default there is one process.

    Returns:
        list[Tensor]: One gradient an alpha; zeros where a loss does not depend on it. Weights, their ``.grad`` and the
        alphas come back untouched, also after an error.

    Raises:
        ValueError: If an option has no such value.
    """
    if order not in (1, 2):
        raise ValueError(f'architecture_gradient has no order {order!r}; choose 1 or 2.')
    if virtual_lr < 0 or r <= 0:
        raise ValueError(f'architecture_gradient needs virtual_lr >= 0 and r > 0, not {virtual_lr} and {r}.')
    with _requiring_grad(alphas), torch.enable_grad():
        if order == 1 or virtual_lr == 0:
            gradients = average(_gradients(val_loss, alphas))
        else:
            gradients = _second_order(train_loss, val_loss, weights, alphas, virtual_lr, r, average)
        if extra_loss is not None and beta:
            extra = average(_gradients(extra_loss, alphas))
            gradients = [g + beta * e for g, e in zip(gradients, extra, strict=True)]
    return gradients


def _second_order(
    train_loss: Loss,
    val_loss: Loss,
    weights: Sequence[Tensor],
    alphas: Sequence[Tensor],
    virtual_lr: float,
    r: float,
    average: Average,
) -> list[Tensor]:
    start = [w.detach().clone() for w in weights]

    @torch.no_grad()
    def move(step: float, direction: Sequence[Tensor]) -> None:
        for w, origin, d in zip(weights, start, direction, strict=True):
            w.copy_(origin).add_(d, alpha=step)

    try:
        move(-virtual_lr, average(_gradients(train_loss, weights)))
        both = average(_gradients(val_loss, [*alphas, *weights]))
        gradients, v = both[: len(alphas)], both[len(alphas) :]
        norm = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(part) for part in v])).item()
        if norm == 0:
            return gradients  # the weights do not matter to the validation loss, nor does how they were trained
        eps = r / norm
        move(eps, v)
        plus = average(_gradients(train_loss, alphas))
        move(-eps, v)
        minus = average(_gradients(train_loss, alphas))
        scale = virtual_lr / (2 * eps)
        return [g - scale * (p - m) for g, p, m in zip(gradients, plus, minus, strict=True)]
    finally:
        with torch.no_grad():
            for w, origin in zip(weights, start, strict=True):
                w.copy_(origin)


def _gradients(loss: Loss, parameters: Sequence[Tensor]) -> list[Tensor]:
    """Gradients of a loss, without touching ``.grad``; zeros for what it does not depend on."""
    value = loss()
    if not value.requires_grad:
        return [torch.zeros_like(p) for p in parameters]
    return list(torch.autograd.grad(value, parameters, allow_unused=True, materialize_grads=True))


@contextmanager
def _requiring_grad(parameters: Sequence[Tensor]) -> Iterator[None]:
    before = [p.requires_grad for p in parameters]
    try:
        for p in parameters:
            p.requires_grad_(True)
        yield
    finally:
        for p, flag in zip(parameters, before, strict=True):
            p.requires_grad_(flag)
