"""A reproducible split of any data set."""

import pytest
from mmengine.dataset import BaseDataset
from mmengine.registry import DATASETS


class Numbers(BaseDataset):
    def __init__(self, length, **kwargs):
        self.length = length
        super().__init__(**kwargs)

    def load_data_list(self):
        return [{'value': value} for value in range(self.length)]


def part(name, length=11, **options):
    data = DATASETS.build(
        dict(type='ruas_mm.split_dataset', part=name, dataset=dict(type=Numbers, length=length), **options)
    )
    return [data[index]['value'] for index in range(len(data))]


@pytest.mark.parametrize(('fraction', 'size'), [(0.5, 6), (0.2, 2), (0.9, 10)])
def test_the_parts_share_nothing_and_lose_nothing(fraction, size):
    weights, architecture = part('weights', fraction=fraction), part('architecture', fraction=fraction)
    assert len(weights) == size
    assert sorted(weights + architecture) == list(range(11))


def test_the_seed_decides():
    assert part('weights', 40, seed=1) == part('weights', 40, seed=1)
    assert part('weights', 40, seed=1) != part('weights', 40, seed=2)


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(name='test'), "part of split_dataset must be .*, got 'test'"),
        (dict(name='weights', fraction=1.0), r'fraction of split_dataset must be in \(0, 1\), got 1.0'),
        (
            dict(name='weights', length=1, fraction=0.1),
            "part 'weights' of the data set must not be empty, got 1 images",
        ),
    ],
)
def test_mistakes_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        part(**options)
