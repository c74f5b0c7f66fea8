"""Slots: the places of a module whose operation is searched, and their architecture parameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from ruas_mm.search.genotype import Genotype
from ruas_mm.search.mixed_op import DrawnCandidate, MixedOp
from ruas_mm.search.operations import build_operation

GenotypeLike = Genotype | Mapping[str, str] | str | Path | None

RELAXATIONS = ('softmax', 'gumbel', 'sampled')
"""What a slot runs in training: the mixture of all candidates, or one that is drawn; see :class:`SearchSlots`."""


class SearchSlots(nn.Module):
    """The slots of one module, in their searchable or their derived form.

    Searchable (``genotype=None``): every slot is a :class:`MixedOp`, and ``alphas`` holds one row of architecture
    parameters a slot. They require no gradient, so that no weight optimizer, gradient clipping or gradient reducer
    ever sees them; a search turns that on for its own step. Derived: every slot is the one operation that the genotype
    names, and there are no parameters.

    What runs in training depends on ``relaxation``:

    * ``softmax``: all candidates, weighted by the softmax of the architecture parameters.
    * ``gumbel``: one candidate, drawn with the probabilities of the softmax: the largest of the parameters after Gumbel
      noise has been added. Its output has the weight 1. In the backward pass this weight stands for the candidate's
      entry in the softmax of the noisy parameters at the slots' temperature (straight-through; GDAS, Dong and Yang
      2019, arXiv:1910.04465).
    * ``sampled``: as ``gumbel``, or all open candidates equally probable, as :meth:`draw` is told. :meth:`keep` closes
      the least probable ones in the course of a search.

    In evaluation mode the last two run the most probable candidate. They draw anew whenever :meth:`probs` is called,
    from torch's global generator, unless :meth:`draw` has fixed the draw.

    Args:
        prefix (str): Name of the module in genotypes, e.g. ``scene``.
        names (Sequence[str]): Names of its slots, e.g. ``distill_1``.
        candidates (Sequence[str]): Operations that each slot chooses from.
        genotype (Genotype | Mapping | str | Path, optional): The derived architecture, by value, file or shipped name.
        edges (Sequence[tuple[str, str]], optional): The nodes that each slot leads from and to, for drawings; parallel
            branches from ``in`` to ``out`` by default.
        normalise (bool): Whether mixed operations normalise their kernels; see :class:`MixedOp`. Defaults to False.

    Attributes:
        temperature (float): Divides the architecture parameters before the softmax, above 0; smaller values sharpen
            the mixture. Defaults to 1; a search may lower it.
        relaxation (str): One of ``RELAXATIONS``. Defaults to ``softmax``.
        open_candidates (Tensor): Which candidates may still be drawn and chosen: a mask of shape (slots, candidates),
            on the CPU.

    Raises:
        ValueError: If the genotype does not fit the slots; the message names the slot.
    """

    temperature = 1.0
    relaxation = 'softmax'

    def __init__(
        self,
        prefix: str,
        names: Sequence[str],
        candidates: Sequence[str],
        genotype: GenotypeLike = None,
        edges: Sequence[tuple[str, str]] | None = None,
        normalise: bool = False,
    ) -> None:
        super().__init__()
        self.prefix = prefix
        self.normalise = normalise
        self.names = tuple(f'{prefix}.{name}' for name in names)
        self.edges = (('in', 'out'),) * len(names) if edges is None else tuple(edges)
        self.candidates = tuple(candidates)
        self.choices = None if genotype is None else Genotype.load(genotype).choose(self.names, self.candidates)
        if self.searchable:
            # Nearly uniform, with ties broken, as in DARTS.
            self.alphas = nn.Parameter(1e-3 * torch.randn(len(names), len(candidates)), requires_grad=False)
        self.open_candidates = torch.ones(len(names), len(candidates), dtype=torch.bool)
        self._draw: tuple[Tensor, bool] | None = None  # the noise, and whether it decides alone

    @property
    def searchable(self) -> bool:
        """Whether the operations are still open."""
        return self.choices is None

    def build(self, index: int, in_channels: int, out_channels: int, stride: int = 1, merged: bool = True) -> nn.Module:
        """Build the operation of one slot, to be called as ``operation(x, probs)``.

        Args:
            index (int): Which slot.
            in_channels (int): Channels of the input.
            out_channels (int): Channels of the output.
            stride (int): Stride of the slot.
            merged (bool): Whether a mixed operation adds its kernels; see :class:`MixedOp`.

        Returns:
            nn.Module: A mixed operation, or the chosen one.
        """
        if self.searchable:
            operation = MixedOp(self.candidates, in_channels, out_channels, stride, merged, self.normalise)
            operation.slot = self.names[index]
            return operation
        return build_operation(self.choices[index], in_channels, out_channels, stride)

    def probs(self) -> Sequence[Tensor | DrawnCandidate | None]:
        """Return what each slot's operation takes.

        Returns:
            Sequence[Tensor | DrawnCandidate | None]: The softmax of its row; the candidate to run where the relaxation
            draws one; None in the derived form.
        """
        if not self.searchable:
            return (None,) * len(self.names)
        if self.relaxation == 'softmax':
            return (self.alphas / self.temperature).softmax(dim=-1).unbind()
        if not self.training:
            return tuple(map(DrawnCandidate, self._most_probable()))
        noise, uniform = (_gumbel(self.open_candidates.shape), False) if self._draw is None else self._draw
        noise = noise.masked_fill(~self.open_candidates, -torch.inf).to(self.alphas)
        logits = noise if uniform else self.alphas + noise
        indices = logits.argmax(dim=-1)
        if not logits.requires_grad:
            return tuple(map(DrawnCandidate, indices.tolist()))
        soft = (logits / self.temperature).softmax(dim=-1).gather(-1, indices[:, None]).squeeze(-1)
        return tuple(map(DrawnCandidate, indices.tolist(), soft - soft.detach() + 1))

    def distribution(self, alphas: Tensor | None = None) -> Tensor:
        """Return the share that each candidate has in what architecture steps run, differentiable.

        Args:
            alphas (Tensor, optional): Architecture parameters to take; the slots' own by default.

        Returns:
            Tensor: The weights of the mixture, which follow the temperature, or the probabilities of the draw, which do
            not; shape (slots, candidates).
        """
        alphas = self.alphas if alphas is None else alphas
        if self.relaxation == 'softmax':
            return (alphas / self.temperature).softmax(dim=-1)
        return alphas.masked_fill(~self.open_candidates.to(alphas.device), -torch.inf).softmax(dim=-1)

    def draw(self, generator: torch.Generator | None = None, uniform: bool = False) -> None:
        """Draw the candidates that :meth:`probs` returns from now on, given the parameters at that time.

        Args:
            generator (torch.Generator, optional): Where the random numbers come from, on the CPU; torch's global one
                by default.
            uniform (bool): Whether all open candidates are equally probable.
        """
        self._draw = _gumbel(self.open_candidates.shape, generator), uniform

    def keep(self, count: int) -> None:
        """Close the least probable open candidates of every slot.

        Args:
            count (int): How many of each slot stay open, at least 1; nothing happens where there are no more.
        """
        order = self._open_alphas().argsort(dim=-1, descending=True, stable=True).cpu()
        self.open_candidates = self.open_candidates & torch.zeros_like(self.open_candidates).scatter_(
            -1, order[:, :count], True
        )

    def _open_alphas(self) -> Tensor:
        """Return the parameters, those of closed candidates as those of probability 0."""
        return self.alphas.detach().masked_fill(~self.open_candidates.to(self.alphas.device), -torch.inf)

    def _most_probable(self) -> list[int]:
        return self._open_alphas().argmax(dim=-1).tolist()

    @torch.no_grad()
    def probabilities(self) -> dict[str, dict[str, float]]:
        """Return the probability of every candidate by slot and name, at temperature 1; empty in the derived form.

        It is 0 for candidates that are closed.
        """
        if not self.searchable:
            return {}
        rows = self._open_alphas().double().softmax(dim=-1).tolist()
        return {slot: dict(zip(self.candidates, row, strict=True)) for slot, row in zip(self.names, rows, strict=True)}

    def derive(self) -> dict[str, str]:
        """Return the operation of each slot: the most probable candidate, or the one already chosen (METHOD §7)."""
        choices = [self.candidates[index] for index in self._most_probable()] if self.searchable else self.choices
        return dict(zip(self.names, choices, strict=True))


def _gumbel(shape: Sequence[int], generator: torch.Generator | None = None) -> Tensor:
    """Return noise of the standard Gumbel distribution; float64 and on the CPU, so that it is the same everywhere."""
    return -(-torch.rand(shape, generator=generator, dtype=torch.float64).log()).log()


def searchable_slots(model: nn.Module) -> list[SearchSlots]:
    """Find what is still open in a model.

    Args:
        model (nn.Module): Any model.

    Returns:
        list[SearchSlots]: Its slots in searchable form.
    """
    return [module for module in model.modules() if isinstance(module, SearchSlots) and module.searchable]


def slot_edges(model: nn.Module) -> dict[str, tuple[str, str]]:
    """Return the nodes that each slot of a model leads from and to, for drawings.

    Args:
        model (nn.Module): Any model.

    Returns:
        dict[str, tuple[str, str]]: By name, also of slots that are not searchable.
    """
    modules = [module for module in model.modules() if isinstance(module, SearchSlots)]
    return {name: edge for module in modules for name, edge in zip(module.names, module.edges, strict=True)}


def derive_genotype(model: nn.Module, origin: dict | None = None) -> Genotype:
    """Read off the architecture of a model.

    Args:
        model (nn.Module): Any model with :class:`SearchSlots` inside.
        origin (dict, optional): Where it comes from, kept in the file.

    Returns:
        Genotype: The most probable operation of every slot, with all probabilities.

    Raises:
        ValueError: If the model has no slots.
    """
    slots: dict[str, str] = {}
    probabilities: dict[str, dict[str, float]] = {}
    for module in model.modules():
        if isinstance(module, SearchSlots):
            slots.update(module.derive())
            probabilities.update(module.probabilities())
    if not slots:
        raise ValueError(f'{type(model).__name__} has no searchable slots.')
    return Genotype(slots, probabilities, origin or {})
