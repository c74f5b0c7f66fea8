"""Genotype: which operation each slot of an architecture uses, as a small versioned JSON file."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ruas_mm.search.operations import OPERATIONS
from ruas_mm.utils.fileio import atomic_write, open_file
from ruas_mm.utils.text import shorten, show

_SHIPPED = Path(__file__).parent / 'genotypes'
_FORMAT = 'ruas_mm.genotype'
_VERSION = 1
# Bytes in a file; those of this package have 3 thousand.
_LARGEST = 2**22


@dataclass(frozen=True)
class Genotype:
    """A derived architecture.

    Attributes:
        slots (dict[str, str]): Operation of each slot, by names such as ``scene.distill_1`` or ``ssd_head.loc_2``.
        probabilities (dict[str, dict[str, float]]): What the search believed of each candidate; empty if unknown.
        origin (dict[str, Any]): Where the architecture comes from, for people to read.
        undecided (dict[str, str]): The slots whose operation the search could not tell from its alternatives, each with
            the reason in a sentence.
    """

    slots: dict[str, str]
    probabilities: dict[str, dict[str, float]] = field(default_factory=dict)
    origin: dict[str, Any] = field(default_factory=dict)
    undecided: dict[str, str] = field(default_factory=dict)

    @staticmethod
    def names() -> list[str]:
        """Return the names of the genotypes shipped with the package."""
        return sorted(path.stem for path in _SHIPPED.glob('*.json'))

    @classmethod
    def load(cls, source: Genotype | Mapping[str, str] | str | Path) -> Genotype:
        """Read a genotype.

        Args:
            source (Genotype | Mapping | str | Path): A file, the name of a shipped genotype, a mapping of slots to
                operations, or a genotype, which is returned as it is.

        Returns:
            Genotype: The architecture.

        Raises:
            FileNotFoundError: If it is neither a file nor a shipped name.
            OSError: If the file is no regular file, or cannot be read.
            ValueError: If the file is no genotype, of another version, or names an unknown operation.
        """
        if isinstance(source, Genotype):
            return source
        if isinstance(source, Mapping):
            return cls._checked(dict(source), {}, {}, {}, 'the genotype given')
        if not isinstance(source, (str, os.PathLike)):
            raise ValueError(f'A genotype must be a file, a name or a mapping, got {show(source)}.')
        path, text = cls._read(source)
        try:
            content = json.loads(text.decode('utf-8-sig'), object_pairs_hook=_unique, parse_constant=_refuse_constant)
        except UnicodeDecodeError:
            raise ValueError(f'Genotype file {path} is not JSON: it is not text in UTF-8.') from None
        except RecursionError:
            raise ValueError(f'Genotype file {path} is not a genotype: it is nested too deeply.') from None
        except ValueError as error:
            raise ValueError(f'Genotype file {path} is not JSON: {shorten(str(error)).rstrip(".")}.') from None
        if not isinstance(content, dict) or content.get('format') != _FORMAT:
            raise ValueError(f'{path} is not a genotype file: expected "format": "{_FORMAT}".')
        if content.get('version') != _VERSION:
            raise ValueError(f'Genotype file {path} has version {show(content.get("version"))}, expected {_VERSION}.')
        more = [content.get(key) or {} for key in ('probabilities', 'origin', 'undecided')]
        return cls._checked(content.get('slots'), *more, f'genotype file {path}')

    @classmethod
    def _read(cls, source: str | os.PathLike[str]) -> tuple[Path, bytes]:
        """Return path and content of a file, or of a shipped one."""
        try:
            path, file = Path(source), open_file(source, 'Genotype file')
        except FileNotFoundError:
            path = _SHIPPED / f'{source}.json'
            try:
                file = open_file(path, 'Genotype file')
            except FileNotFoundError:
                raise FileNotFoundError(
                    f'Genotype {str(source)!r} is neither a file nor one of the shipped names: '
                    f'{", ".join(cls.names())}.'
                ) from None
        with file:
            text = file.read(_LARGEST + 1)
        if len(text) > _LARGEST:
            raise ValueError(f'{path} is not a genotype file: it has more than {_LARGEST} bytes.')
        return path, text

    @classmethod
    def _checked(cls, slots: Any, probabilities: Any, origin: Any, undecided: Any, where: str) -> Genotype:
        if not isinstance(slots, dict) or not slots:
            raise ValueError(f'No "slots" in {where}: expected a mapping of slot names to operations.')
        for slot, operation in slots.items():
            if not isinstance(slot, str):
                raise ValueError(f'A slot of {where} must have a string as its name, got {show(slot)}.')
            if not isinstance(operation, str) or operation not in OPERATIONS:
                raise ValueError(
                    f'Slot {show(slot)} of {where} has the unknown operation {show(operation)}; '
                    f'the known ones are {", ".join(OPERATIONS)}.'
                )
        for name, value in (('probabilities', probabilities), ('origin', origin), ('undecided', undecided)):
            if not isinstance(value, dict):
                raise ValueError(f'"{name}" in {where} is not a mapping.')
        for slot, row in probabilities.items():
            if not isinstance(row, dict) or not all(map(_is_probability, row.values())):
                raise ValueError(
                    f'"probabilities" of slot {show(slot)} in {where} must map operations to numbers in [0, 1].'
                )
        for slot, reason in undecided.items():
            if slot not in slots:
                raise ValueError(f'"undecided" in {where} names slot {show(slot)}, which "slots" does not.')
            if not isinstance(reason, str):
                raise ValueError(
                    f'"undecided" of slot {show(slot)} in {where} must be a reason in words, got {show(reason)}.'
                )
        return cls(slots, probabilities, origin, undecided)

    def to_json(self) -> str:
        """Return the content of the genotype's file."""
        content = {'format': _FORMAT, 'version': _VERSION, 'slots': self.slots}
        if self.probabilities:
            content['probabilities'] = self.probabilities
        if self.origin:
            content['origin'] = self.origin
        if self.undecided:
            content['undecided'] = self.undecided
        return json.dumps(content, indent=2) + '\n'

    def save(self, path: str | Path) -> None:
        """Write the genotype as JSON, first under a temporary name.

        Args:
            path (str | Path): File to write.
        """
        atomic_write(path, self.to_json())

    def choose(self, slots: Sequence[str], candidates: Sequence[str]) -> list[str]:
        """Return the operations of one module's slots.

        Args:
            slots (Sequence[str]): Full names of all slots of the module, of one prefix (``ssd_neck.extra_1``, …).
            candidates (Sequence[str]): Operations that the module's space holds.

        Returns:
            list[str]: One operation a slot.

        Raises:
            ValueError: If a slot is missing, unknown to the module, or uses an operation of another space.
        """
        prefix = slots[0].rpartition('.')[0] + '.'
        for slot in self.slots:
            if slot.startswith(prefix) and slot not in slots:
                known = ', '.join(map(repr, slots))
                raise ValueError(f'The genotype has slot {slot!r}, which this model does not have; it has {known}.')
        for slot in slots:
            if slot not in self.slots:
                raise ValueError(f'The genotype does not name slot {slot!r}, which this model has.')
            if self.slots[slot] not in candidates:
                raise ValueError(
                    f'Slot {slot!r} of the genotype uses {self.slots[slot]!r}, which is not in its space: '
                    f'{", ".join(candidates)}.'
                )
        return [self.slots[slot] for slot in slots]


def set_genotype(config: Any, slots: Mapping[str, str]) -> bool:
    """Give an architecture to every part of a model's config that has the key ``genotype``.

    Args:
        config (Any): Config of a model, which is changed, or a part of it.
        slots (Mapping[str, str]): Operation of each slot.

    Returns:
        bool: Whether any part has that key.
    """
    found = False
    if isinstance(config, dict):
        if 'genotype' in config:
            config['genotype'] = slots
            found = True
        found |= any([set_genotype(value, slots) for key, value in config.items() if key != 'genotype'])
    elif isinstance(config, (list, tuple)):
        found = any([set_genotype(value, slots) for value in config])
    return found


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make a dict of the pairs of a JSON object, whose keys JSON itself allows to come twice."""
    result = dict(pairs)
    if len(result) < len(pairs):
        (name, _), *_ = Counter(name for name, _ in pairs).most_common(1)
        raise ValueError(f'the key {show(name)} comes twice')
    return result


def _refuse_constant(name: str) -> None:
    raise ValueError(f'{name} is no number of JSON')


def _is_probability(value: Any) -> bool:
    return isinstance(value, (int, float)) and 0 <= value <= 1
