"""Every batch of the validation set, pass after pass, and from any place again."""

import random

import numpy as np
import pytest
import torch
from mmengine.dataset import DefaultSampler, default_collate
from torch.utils.data import DataLoader, Dataset

from ruas_mm.engine.random_state import get_random_state, set_random_state
from ruas_mm.engine.validation_stream import ValidationStream


class Noisy(Dataset):
    """Samples with what each generator of random numbers adds to them."""

    def __init__(self, length=5):
        self.length = length

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        return index, torch.rand(()).item(), np.random.rand(), random.random()


def stream(length=5, batch_size=2, seed=0, num_workers=0):
    data = Noisy(length)
    sampler = DefaultSampler(data, shuffle=True, seed=seed)
    return ValidationStream(
        DataLoader(data, batch_size, sampler=sampler, collate_fn=default_collate, num_workers=num_workers), seed
    )


def take(source, count):
    return [tuple(part.tolist() for part in next(source)) for _ in range(count)]


def test_each_pass_holds_every_sample_once_in_a_new_order():
    batches = take(stream(), 9)
    passes = [sum((batch[0] for batch in batches[start : start + 3]), []) for start in (0, 3, 6)]
    assert all(sorted(one) == [0, 1, 2, 3, 4] for one in passes)
    assert len({tuple(one) for one in passes}) == 3


def test_random_numbers_differ_from_pass_to_pass():
    draws = [draw for batch in take(stream(), 9) for draw in zip(*batch[1:], strict=True)]
    assert len(set(draws)) == 15


@pytest.mark.parametrize('place', [0, 1, 3, 4, 7])
def test_it_goes_on_from_any_place(place):
    expected = take(stream(), 10)
    first = stream()
    take(first, place)
    again = stream()
    again.load_state_dict(first.state_dict())
    torch.manual_seed(123)
    assert take(again, 10 - place) == expected[place:]


def test_training_keeps_its_random_numbers():
    torch.manual_seed(1), np.random.seed(1), random.seed(1)
    expected = torch.rand(2).tolist(), np.random.rand(2).tolist(), random.random()
    torch.manual_seed(1), np.random.seed(1), random.seed(1)
    source = stream()
    take(source, 2)
    ours = [torch.rand(1).item(), None], [np.random.rand(), None]
    take(source, 3)
    ours[0][1], ours[1][1] = torch.rand(1).item(), np.random.rand()
    assert (ours[0], ours[1], random.random()) == expected


def test_workers_do_not_change_which_samples_come():
    assert [batch[0] for batch in take(stream(num_workers=1), 4)] == [batch[0] for batch in take(stream(), 4)]


def test_an_empty_set_is_refused():
    with pytest.raises(ValueError, match='validation set of the search is empty'):
        ValidationStream(DataLoader(Noisy(1), 2, drop_last=True), 0)


def test_random_states_survive_a_checkpoint(tmp_path):
    from ruas_mm.utils.checkpoint import load_from_local

    torch.save({'random': get_random_state()}, tmp_path / 'state.pth')
    expected = torch.rand(()).item(), np.random.rand(), random.random()
    set_random_state(load_from_local(tmp_path / 'state.pth')['random'])
    assert (torch.rand(()).item(), np.random.rand(), random.random()) == expected
