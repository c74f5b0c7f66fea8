"""Slots: the places of a module whose operation is searched, and their architecture parameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from ruas_mm.search.genotype import Genotype
from ruas_mm.search.mixed_op import MixedOp
from ruas_mm.search.operations import build_operation

GenotypeLike = Genotype | Mapping[str, str] | str | Path | None


class SearchSlots(nn.Module):
    """The slots of one module, in their searchable or their derived form.

    Searchable (``genotype=None``): every slot is a :class:`MixedOp`, and ``alphas`` holds one row of architecture
    parameters a slot. They require no gradient, so that no weight optimizer, gradient clipping or gradient reducer
    ever sees them; a search turns that on for its own step. Derived: every slot is the one operation that the genotype
    names, and there are no parameters.

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

    Raises:
        ValueError: If the genotype does not fit the slots; the message names the slot.
    """

    temperature = 1.0

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
            return MixedOp(self.candidates, in_channels, out_channels, stride, merged, self.normalise)
        return build_operation(self.choices[index], in_channels, out_channels, stride)

    def probs(self) -> Sequence[Tensor | None]:
        """Return what each slot's operation takes: the softmax of its row, or None in the derived form."""
        if not self.searchable:
            return (None,) * len(self.names)
        return (self.alphas / self.temperature).softmax(dim=-1).unbind()

    @torch.no_grad()
    def probabilities(self) -> dict[str, dict[str, float]]:
        """Return the probability of every candidate by slot and name, at temperature 1; empty in the derived form."""
        if not self.searchable:
            return {}
        rows = self.alphas.double().softmax(dim=-1).tolist()
        return {slot: dict(zip(self.candidates, row, strict=True)) for slot, row in zip(self.names, rows, strict=True)}

    def derive(self) -> dict[str, str]:
        """Return the operation of each slot: the most probable candidate, or the one already chosen (METHOD §7)."""
        if self.searchable:
            choices = [self.candidates[index] for index in self.alphas.argmax(dim=-1).tolist()]
        else:
            choices = self.choices
        return dict(zip(self.names, choices, strict=True))


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
