import json
import os
import random
import re
import sys
from pathlib import Path

import pytest

from ruas_mm.search import HIGH_LEVEL_SPACE, OPERATIONS, SCENE_SPACE, Genotype, SearchSlots

sys.path.insert(0, str(Path(__file__).parents[1] / 'utils'))

from hostile import mutated_genotype

CELL = ('distill_1', 'remain_1', 'distill_2', 'remain_2', 'distill_3', 'remain_3', 'last')  # o1 … o7 of METHOD §3
NOTATION = {
    'SC': 'skip',
    '1-C': 'conv_1x1',
    '3-C': 'conv_3x3',
    '5-C': 'conv_5x5',
    '7-C': 'conv_7x7',
    '1-RC': 'res_conv_1x1',
    '3-RC': 'res_conv_3x3',
    '3-2-DC': 'dil_conv_3x3_d2',
    '5-2-DC': 'dil_conv_5x5_d2',
    '3-2-RDC': 'res_dil_conv_3x3_d2',
}
# METHOD §4, "Published genotypes", word for word.
ENHANCEMENT = 'SC, 1-RC, 3-2-RDC, 3-C, 3-C, SC, 3-C'
PUBLISHED = {
    'ruas_enhance_journal': {
        'scene': ENHANCEMENT,
        'noise_removal': '1-RC, 3-RC, 3-2-DC, 1-RC, 3-RC, 3-C, 3-RC',
    },
    'ruas_enhance_conference': {
        'scene': ENHANCEMENT,
        'noise_removal': '1-RC, 1-RC, 3-2-RDC, SC, 1-RC, 1-RC, SC',
    },
    'ruas_darkface_vgg16': {
        'scene': 'SC, 1-C, 1-RC, 1-RC, 1-RC, 1-RC, 3-RC',
        'ssd_neck.extra': '7-C, 7-C, 7-C, 3-C',
        'ssd_head.loc': '7-C, 3-2-DC, 3-2-DC, 3-2-DC, 3-2-DC, 3-C',
        'ssd_head.conf': '3-2-DC, 7-C, 7-C, 5-C, 5-2-DC, 7-C',
    },
}
# An SSD before any search: 1x1 and 3x3 extra layers in turn, 3x3 predictors; (extra layers, levels).
PLAIN = {'ssd_plain': (4, 6), 'ssd300_plain': (8, 6), 'ssd512_plain': (10, 7)}

GOOD = {'format': 'ruas_mm.genotype', 'version': 1, 'slots': {'scene.last': 'skip'}}
SCENE = dict.fromkeys((f'scene.{name}' for name in CELL), 'conv_3x3')


def expand(parts):
    slots = {}
    for prefix, text in parts.items():
        operations = [NOTATION[word] for word in text.split(', ')]
        separator, names = ('_', range(1, len(operations) + 1)) if '.' in prefix else ('.', CELL)
        slots.update(
            {f'{prefix}{separator}{name}': operation for name, operation in zip(names, operations, strict=True)}
        )
    return slots


def write(path, content):
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def one_sentence(error):
    """Errors are read by people: one line that ends as a sentence does."""
    text = str(error.value)
    return '\n' not in text and text.endswith('.')


@pytest.mark.parametrize('name', list(PUBLISHED))
def test_published_genotypes(name):
    expected = expand(PUBLISHED[name])
    slots = Genotype.load(name).slots
    for slot, operation in expected.items():
        assert slots[slot] == operation, slot
    assert slots == expected


@pytest.mark.parametrize('name', list(PLAIN))
def test_plain_genotypes(name):
    extra, levels = PLAIN[name]
    expected = {f'ssd_neck.extra_{i}': 'conv_1x1' if i % 2 else 'conv_3x3' for i in range(1, extra + 1)}
    expected |= {f'ssd_head.{kind}_{i}': 'conv_3x3' for kind in ('loc', 'conf') for i in range(1, levels + 1)}
    assert Genotype.load(name).slots == expected


def test_names_lists_what_load_takes():
    names = Genotype.names()
    assert names == sorted(names)
    assert {*PUBLISHED, *PLAIN} <= set(names)
    for name in names:
        genotype = Genotype.load(name)
        assert genotype.origin, f'{name} does not say where it comes from'
        for slot, operation in genotype.slots.items():
            space = SCENE_SPACE if slot.startswith(('scene.', 'noise_removal.')) else HIGH_LEVEL_SPACE
            assert operation in space, slot


def test_round_trip(tmp_path):
    genotype = Genotype(
        {'scene.last': 'skip', 'ssd_head.loc_1': 'conv_7x7'},
        {'scene.last': {'skip': 0.1 + 0.2, 'conv_1x1': 1e-17}},
        {'what': 'Grüße', 'epoch': 3},
        {'ssd_head.loc_1': 'The margin is noise.'},
    )
    path = tmp_path / 'new folder' / 'genotype.json'
    genotype.save(path)
    loaded = Genotype.load(path)
    assert loaded == genotype  # probabilities bit for bit
    assert list(loaded.slots) == list(genotype.slots)
    assert Genotype.load(str(path)) == genotype
    loaded.save(str(tmp_path / 'again.json'))
    assert (tmp_path / 'again.json').read_bytes() == path.read_bytes()
    content = json.loads(path.read_text(encoding='utf-8'))
    assert (content['format'], content['version']) == ('ruas_mm.genotype', 1)
    assert content['slots'] == genotype.slots


def test_only_slots_are_needed(tmp_path):
    genotype = Genotype.load(write(tmp_path / 'a.json', GOOD))
    assert genotype.slots == {'scene.last': 'skip'}
    assert genotype.probabilities == {}
    assert genotype.origin == {}
    genotype.save(tmp_path / 'b.json')
    assert Genotype.load(tmp_path / 'b.json') == genotype


def test_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / 'genotype.json'
    Genotype({'scene.last': 'skip'}).save(path)
    before = path.read_bytes()

    def fail(*args):
        raise OSError('disk full')

    monkeypatch.setattr(os, 'replace', fail)
    with pytest.raises(OSError, match='disk full'):
        Genotype({'scene.last': 'conv_3x3'}).save(path)
    with pytest.raises(OSError, match='disk full'):
        Genotype({'scene.last': 'conv_3x3'}).save(tmp_path / 'new.json')
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_bytes() == before


def test_what_json_cannot_hold_leaves_nothing(tmp_path):
    with pytest.raises(TypeError):
        Genotype({'scene.last': 'skip'}, origin={'what': object()}).save(tmp_path / 'genotype.json')
    assert not list(tmp_path.iterdir())


def test_load_by_value():
    genotype = Genotype({'scene.last': 'skip'})
    assert Genotype.load(genotype) is genotype
    given = {'scene.last': 'skip'}
    loaded = Genotype.load(given)
    assert loaded == genotype
    given['scene.last'] = 'conv_1x1'
    assert loaded == genotype, 'a genotype keeps its own copy of the mapping'


def test_a_file_goes_before_a_shipped_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shipped = Genotype.load('ruas_enhance_journal')
    write(tmp_path / 'ruas_enhance_journal', GOOD)
    assert Genotype.load('ruas_enhance_journal').slots == GOOD['slots']
    (tmp_path / 'ruas_enhance_journal').unlink()
    (tmp_path / 'ruas_enhance_journal').mkdir()  # e.g. a work directory of that name
    assert Genotype.load('ruas_enhance_journal') == shipped


@pytest.mark.parametrize('source', ['no_such_name', 'missing/genotype.json', '', '.', 'a' * 400])
def test_neither_file_nor_name(source):
    """Whatever the string, one sentence with the names to choose from."""
    with pytest.raises(FileNotFoundError, match=re.escape(repr(source))) as error:
        Genotype.load(source)
    assert one_sentence(error)
    assert all(name in str(error.value) for name in Genotype.names())


@pytest.mark.parametrize(
    ('content', 'words'),
    [
        ('{"format": ', ['not JSON']),
        ('', ['not JSON']),
        ('[1, 2]', ['not a genotype', 'ruas_mm.genotype']),
        ('null', ['not a genotype']),
        ({'slots': {'scene.last': 'skip'}}, ['not a genotype', '"format"']),
        (GOOD | {'format': 'coco'}, ['not a genotype', '"format"']),
        (GOOD | {'version': 2}, ['version 2', 'expected 1']),
        (GOOD | {'version': '1'}, ["version '1'", 'expected 1']),
        ({'format': 'ruas_mm.genotype', 'slots': {'scene.last': 'skip'}}, ['version None']),
        ({'format': 'ruas_mm.genotype', 'version': 1}, ['"slots"']),
        (GOOD | {'slots': {}}, ['"slots"']),
        (GOOD | {'slots': ['skip']}, ['"slots"']),
        (GOOD | {'slots': {'scene.last': 'conv_9x9'}}, ["'scene.last'", "'conv_9x9'", 'skip, conv_1x1']),
        (GOOD | {'slots': {'scene.last': None}}, ["'scene.last'", 'None']),
        (GOOD | {'slots': {'scene.last': ['skip']}}, ["'scene.last'", 'a list']),
        (GOOD | {'slots': {'scene.last': {'skip': 0.5}}}, ["'scene.last'"]),
        (GOOD | {'undecided': ['scene.last']}, ['"undecided"', 'not a mapping']),
        (GOOD | {'undecided': {'scene.first': 'noise'}}, ['"undecided"', "'scene.first'"]),
        (GOOD | {'undecided': {'scene.last': 3}}, ["'scene.last'", 'a reason in words, got 3']),
    ],
)
def test_bad_files_are_named(tmp_path, content, words):
    path = write(tmp_path / 'bad genotype.json', content)
    with pytest.raises(ValueError) as error:
        Genotype.load(path)
    assert one_sentence(error)
    for word in [str(path), *words]:
        assert word in str(error.value)


def test_a_binary_file_is_named(tmp_path):
    """Easily done: --genotype with the checkpoint instead of the genotype beside it."""
    path = tmp_path / 'epoch_1.pth'
    path.write_bytes(b'PK\x03\x04\xff\xfe')
    with pytest.raises(ValueError, match=re.escape(str(path))) as error:
        Genotype.load(path)
    assert one_sentence(error)


@pytest.mark.parametrize(
    ('content', 'words'),
    [
        (b'[' * 50_000 + b']' * 50_000, 'nested too deeply'),
        (b'{"a":' * 50_000, 'nested too deeply'),
        (b'{"format": "ruas_mm.genotype", "format": "x"}', "the key 'format' comes twice"),
        (json.dumps(GOOD).replace('1', 'NaN').encode(), 'NaN is no number of JSON'),
        (json.dumps(GOOD).replace('1', '9' * 5000).encode(), ''),
        (json.dumps(GOOD).encode('utf-16'), 'not text in UTF-8'),
        (json.dumps(GOOD).encode() + b' ' * 2**22, 'more than 4194304 bytes'),
        (json.dumps(GOOD | {'version': [[9] * 99]}).encode(), 'version a list, expected 1'),
        (json.dumps(GOOD | {'slots': {'scene.last': 'x' * 10**5}}).encode(), 'unknown operation'),
        (json.dumps(GOOD | {'probabilities': {'scene.last': 1}}).encode(), '"probabilities" of slot \'scene.last\''),
        (json.dumps(GOOD | {'probabilities': {'scene.last': {'skip': 'x'}}}).encode(), 'numbers in [0, 1]'),
        (json.dumps(GOOD | {'probabilities': {'scene.last': {'skip': 2}}}).encode(), 'numbers in [0, 1]'),
        (json.dumps(GOOD).replace('"skip"}', '"skip"}, "probabilities": {"a": {"b": 1e999}}').encode(), '[0, 1]'),
    ],
    ids=range(13),
)
def test_hostile_files_are_named(tmp_path, content, words):
    (tmp_path / 'bad.json').write_bytes(content)
    with pytest.raises(ValueError, match=r'bad\.json') as error:
        Genotype.load(tmp_path / 'bad.json')
    assert one_sentence(error) and words in str(error.value) and len(str(error.value)) < 800


def test_a_byte_order_mark_is_read_over(tmp_path):
    (tmp_path / 'a.json').write_bytes(json.dumps(GOOD).encode('utf-8-sig'))  # as Windows' editor saves it
    assert Genotype.load(tmp_path / 'a.json').slots == GOOD['slots']


def test_what_is_no_file_is_named(tmp_path):
    os.mkfifo(tmp_path / 'pipe.json')
    with pytest.raises(OSError, match=r'pipe\.json is not a regular file'):
        Genotype.load(tmp_path / 'pipe.json')
    (tmp_path / 'loop.json').symlink_to(tmp_path / 'loop.json')
    with pytest.raises(OSError, match=r'loop\.json cannot be read: Too many levels'):
        Genotype.load(tmp_path / 'loop.json')
    with pytest.raises(ValueError, match='must be a file, a name or a mapping, got 5'):
        Genotype.load(5)


def test_random_damage_is_named_or_harmless(tmp_path):
    rng, path, loaded = random.Random(0), tmp_path / 'a.json', 0
    for _ in range(2000):
        path.write_bytes(mutated_genotype(rng))
        try:
            genotype = Genotype.load(path)
        except ValueError as error:
            assert str(path) in str(error) and '\n' not in str(error)
        else:
            loaded += 1
            genotype.save(tmp_path / 'again.json')
            assert Genotype.load(tmp_path / 'again.json') == genotype
    assert 0 < loaded < 2000


def test_bad_mapping_is_named():
    with pytest.raises(ValueError, match=r"'scene\.last'.*'nothing'") as error:
        Genotype.load({'scene.last': 'nothing'})
    assert one_sentence(error)
    with pytest.raises(ValueError, match='"slots"'):
        Genotype.load({})


def test_missing_slot_is_named():
    slots = dict(SCENE)
    del slots['scene.distill_3']
    with pytest.raises(ValueError, match=r"'scene\.distill_3'") as error:
        SearchSlots('scene', CELL, SCENE_SPACE, slots)
    assert one_sentence(error)


def test_extra_slot_is_named():
    with pytest.raises(ValueError, match=r"'ssd_head\.loc_7'.*'ssd_head\.loc_6'") as error:
        six = [f'loc_{i}' for i in range(1, 7)]
        SearchSlots('ssd_head', six, HIGH_LEVEL_SPACE, {f'ssd_head.loc_{i}': 'conv_3x3' for i in range(1, 8)})
    assert one_sentence(error)


def test_operation_of_another_space_is_named():
    with pytest.raises(ValueError, match=r"'scene\.last'.*'conv_7x7'.*skip, conv_1x1, conv_3x3") as error:
        SearchSlots('scene', CELL, SCENE_SPACE, SCENE | {'scene.last': 'conv_7x7'})
    assert one_sentence(error)
    with pytest.raises(ValueError, match=r"'ssd_neck\.extra_1'.*'skip'"):
        SearchSlots('ssd_neck', ['extra_1'], HIGH_LEVEL_SPACE, {'ssd_neck.extra_1': 'skip'})


def test_slots_of_other_modules_do_not_matter():
    """One file serves the whole model: each module takes its own slots, and a prefix is a whole word."""
    others = {'noise_removal.last': 'skip', 'scene_2.last': 'conv_1x1', 'ssd_head.loc_1': 'conv_7x7'}
    slots = SearchSlots('scene', CELL, SCENE_SPACE, {**others, **SCENE})
    assert slots.derive() == SCENE


def test_choose_follows_the_order_of_the_module():
    slots = dict(zip([f'scene.{name}' for name in CELL], SCENE_SPACE, strict=True))
    shuffled = dict(reversed(slots.items()))
    assert Genotype(shuffled).choose(list(slots), SCENE_SPACE) == list(SCENE_SPACE)
    assert set(OPERATIONS) >= set(SCENE_SPACE)
