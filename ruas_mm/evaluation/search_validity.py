"""The report of how far a search can be trusted, from what was measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from statistics import mean
from typing import Any

from ruas_mm.evaluation.search_statistics import agreement, combine_slots, compare, rank_correlation, seed_noise

Figures = Mapping[str, Mapping[int, float]]  # name of an architecture -> seed -> figure


def build_report(measured: Mapping[str, Any]) -> dict[str, Any]:
    """Compute the statistics of a report.

    Args:
        measured (Mapping[str, Any]): ``searches`` (each with ``architecture``, ``candidates`` (number by slot),
            ``slots`` and, where known, ``weight_steps``, ``architecture_steps``, ``saturation``), ``metric``,
            ``greater``, and where they were measured: ``importance``, ``ranking`` (``architectures``, ``supernet``,
            ``trainings`` by seed), ``figures`` and ``test`` (figure by architecture and seed), ``best_random``,
            ``random``.

    Returns:
        dict[str, Any]: What ``validity.json`` holds: plain values alone.
    """
    searches = measured['searches']
    report: dict[str, Any] = {key: measured.get(key) for key in ('config', 'metric', 'greater', 'cost')}
    slots = combine_slots([search['slots'] for search in searches])
    for slot, found in (measured.get('importance') or {}).items():
        slots[slot]['importance'] = found
    report['slots'] = slots
    report['searches'] = [
        {key: search.get(key) for key in ('architecture', 'weight_steps', 'architecture_steps', 'saturation')}
        for search in searches
    ]
    report['agreement'] = None
    if len(searches) > 1:
        report['agreement'] = _agreement_by_module(searches)
    ranking = measured.get('ranking')
    report['ranking'] = None
    if ranking:
        trainings = [ranking['trainings'][seed] for seed in sorted(ranking['trainings'])]
        average = [mean(figures) for figures in zip(*trainings, strict=True)]
        report['ranking'] = {
            'architectures': ranking['architectures'],
            'supernet': rank_correlation(ranking['supernet'], average),
            'seeds': rank_correlation(*trainings[:2]) if len(trainings) > 1 else None,
        }
    for key in ('figures', 'test'):
        name = 'comparison' if key == 'figures' else 'test'
        figures = measured.get(key)
        report[name] = figures and _comparison(figures, measured, len(searches))
    report['advice'] = _advice(report['test'] or report['comparison'], bool(report['test']))
    return report


def _agreement_by_module(searches: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    candidates = searches[0]['candidates']
    modules = dict.fromkeys(slot.rpartition('.')[0] for slot in candidates)
    chosen = {'all slots': candidates}
    if len(modules) > 1:
        for module in modules:
            chosen[module] = {slot: n for slot, n in candidates.items() if slot.rpartition('.')[0] == module}
    architectures = [search['architecture'] for search in searches]
    return {name: asdict(agreement(architectures, slots)) for name, slots in chosen.items()}


def _comparison(figures: Figures, measured: Mapping[str, Any], searches: int) -> dict[str, Any]:
    """Compare what was found, and the best random architecture, with the plain one."""
    noise = seed_noise([list(seeds.values()) for seeds in figures.values()])
    plain = list(figures['plain'].values())
    found = [list(figures[f'found_{index}'].values()) for index in range(searches)]
    rows = {'plain': [plain]}
    best = measured.get('best_random')
    if best and len(figures.get(best, {})) > 1:
        # The first seed chose it, and would flatter it.
        rows[f'best of {measured["random"]} random'] = [[figures[best][seed] for seed in sorted(figures[best])[1:]]]
    rows |= {f'search {index}': [values] for index, values in enumerate(found)}
    if searches > 1:
        rows['all searches'] = found
    return {
        'noise': noise and asdict(noise),
        'rows': {
            name: {'figures': values, **_as_dict(values, plain, noise, measured['greater'], name == 'plain')}
            for name, values in rows.items()
        },
    }


def _as_dict(values: Any, plain: Any, noise: Any, greater: bool, is_plain: bool) -> dict[str, Any]:
    result = compare(values, plain, noise, greater)
    if is_plain:
        return {'mean': result.mean, 'sd': result.sd}
    return {**asdict(result), 'exceeds': result.exceeds}


def _advice(comparison: Mapping[str, Any] | None, tested: bool) -> str | None:
    if not comparison:
        return None
    rows = comparison['rows']
    row = rows.get('all searches') or rows['search 0']
    where = 'on the test set' if tested else 'on the images that judge'
    if row['standard_error'] is None:
        return 'Keep the plain architecture: with one training of each, the noise of seeds is not known.'
    figure = f'{row["difference"]:+.4f} with a standard error of {row["standard_error"]:.4f} {where}'
    if not row['exceeds']:
        return (
            f'Keep the plain architecture: the difference of what was found, {figure}, does not exceed two standard '
            'errors.'
        )
    advice = f'Take what was found: its difference to the plain architecture, {figure}, exceeds two standard errors.'
    random = next((rows[name] for name in rows if name.endswith('random')), None)
    if random and random['difference'] >= row['difference']:
        advice += ' But random architectures at the cost of a search did as well: the search is not the reason.'
    return advice


# --- Markdown ---------------------------------------------------------------------------------------------------------


def markdown(report: Mapping[str, Any]) -> str:
    """Write a report for people.

    Args:
        report (Mapping[str, Any]): What :func:`build_report` returned.

    Returns:
        str: Markdown.
    """
    parts = [f'# How far the search of {report["config"]} can be trusted']
    if report['advice']:
        parts.append(f'**{report["advice"]}**')
    for name, title in (('test', 'Comparison on the test set'), ('comparison', 'Comparison')):
        if report[name]:
            parts += [f'## {title}', _comparison_table(report, name)]
    if report['agreement']:
        lines = [
            f'* {name}: {len(row["agreed"])} of {row["slots"]} slots; by chance {row["expected"]:.1f} ± '
            f'{row["sd"]:.1f} (probability of as many by chance: {row["p_value"]:.2g})'
            for name, row in report['agreement'].items()
        ]
        parts += [f'## Agreement of {len(report["searches"])} searches', '\n'.join(lines)]
    if report['ranking']:
        ranking = report['ranking']
        lines = [f'* one-hot figure in the supernet against trainings: {_tau(ranking["supernet"])}']
        if ranking['seeds']:
            lines.append(f'* trainings of one seed against those of another: {_tau(ranking["seeds"])}')
        parts += ["## Ranking (Kendall's τ over random architectures)", '\n'.join(lines)]
    counts = {name: 0 for name in ('decided', 'undecided', 'dead')}
    for row in report['slots'].values():
        counts[row['status']] += 1
    parts += ['## Slots', ', '.join(f'{count} {name}' for name, count in counts.items()) + '.', _slot_table(report)]
    lines = [line for index, search in enumerate(report['searches']) for line in _search_lines(index, search)]
    if report.get('cost'):
        costs = ', '.join(f'{name} {seconds:.0f}' for name, seconds in report['cost'].items())
        lines.append(f'* CPU seconds: {costs}')
    if lines:
        parts += ['## Steps, saturation, cost', '\n'.join(lines)]
    return '\n\n'.join(parts) + '\n'


def _search_lines(index: int, search: Mapping[str, Any]) -> list[str]:
    lines = []
    for key, name in (('weight_steps', 'weight steps'), ('architecture_steps', 'architecture steps')):
        if search[key]:
            lines.append(f'{name}: ' + ', '.join(f'{module} {count}' for module, count in search[key].items()))
    if search['saturation'] is not None:
        lines.append(f'{search["saturation"]:.1%} of the feature saturated (above 0.98)')
    return [f'* search {index}: {"; ".join(lines)}'] if lines else []


def _tau(result: Mapping[str, Any]) -> str:
    if result['tau'] is None:
        return f'not defined over {result["count"]} architectures'
    return (
        f'{result["tau"]:+.2f} over {result["count"]} architectures (standard error without any correlation '
        f'{result["standard_error"]:.2f}, p = {result["p_value"]:.2g})'
    )


def _comparison_table(report: Mapping[str, Any], name: str) -> str:
    noise = report[name]['noise']
    best = 'greater is better' if report['greater'] else 'less is better'
    lines = [
        f'| {report["metric"]} ({best}) | trainings | mean | sd | better than plain by | standard error | '
        '95 % interval |',
        '| --- | --- | --- | --- | --- | --- | --- |',
    ]
    for row_name, row in report[name]['rows'].items():
        interval = row.get('interval')
        cells = [
            row_name,
            '; '.join(', '.join(f'{value:.4f}' for value in values) for values in row['figures']),
            _number(row['mean']),
            _number(row['sd']),
            _number(row.get('difference'), '+'),
            _number(row.get('standard_error')),
            f'{interval[0]:+.4f} … {interval[1]:+.4f}' if interval else '',
        ]
        lines.append(f'| {" | ".join(cells)} |')
    if noise:
        lines.append(f'\nNoise of seeds: sd {noise["sd"]:.4f}, {noise["df"]} degrees of freedom, pooled.')
    return '\n'.join(lines)


def _slot_table(report: Mapping[str, Any]) -> str:
    lines = ['| slot | status | chosen | z | margin | travel | replaced by | figure worse by |', '| --- ' * 8 + '|']
    for slot, row in report['slots'].items():
        importance = row.get('importance') or {}
        cells = [
            slot,
            row['status'],
            ', '.join(row['choices']),
            *(_number(row[key], digits=2) for key in ('z', 'margin', 'travel')),
            importance.get('replaced_by', ''),
            _number(importance.get('worse_by'), '+'),
        ]
        lines.append(f'| {" | ".join(cells)} |')
    return '\n'.join(lines)


def _number(value: float | None, sign: str = '', digits: int = 4) -> str:
    return '' if value is None else f'{value:{sign}.{digits}f}'
