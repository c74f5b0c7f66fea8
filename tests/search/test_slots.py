import copy
import itertools

import pytest
import torch
from torch import nn

from ruas_mm.modules import DistillationCell, SceneModule, cell_slots
from ruas_mm.search import HIGH_LEVEL_SPACE, SCENE_SPACE, Genotype, MixedOp, SearchSlots, derive_genotype

CELL = ('distill_1', 'remain_1', 'distill_2', 'remain_2', 'distill_3', 'remain_3', 'last')
SLOTS = tuple(f'scene.{name}' for name in CELL)


def genotype_of(indices):
    return dict(zip(SLOTS, (SCENE_SPACE[i] for i in indices), strict=True))


def choose(slots, operations, value=200.0):
    """Set the alphas so that each slot's softmax is one-hot to the last bit of float64."""
    with torch.no_grad():
        slots.alphas.zero_()
        for row, name in zip(slots.alphas, operations, strict=True):
            row[slots.candidates.index(name)] = value


def copy_weights(searched, derived):
    """Give a derived module the weights of the searchable one: in place of a mixed operation stands its candidate."""
    if isinstance(searched, MixedOp) and not isinstance(derived, MixedOp):
        matching = [
            operation
            for operation in searched.operations
            if type(operation) is type(derived)
            and repr(operation) == repr(derived)
            # two operations of the same sizes differ in whether they add their input
            and getattr(operation, 'residual', None) == getattr(derived, 'residual', None)
        ]
        assert len(matching) == 1
        derived.load_state_dict(matching[0].state_dict())
        return
    for (name, child), (other_name, other) in zip(searched.named_children(), derived.named_children(), strict=True):
        assert name == other_name
        copy_weights(child, other)
    for name, parameter in derived.named_parameters(recurse=False):
        parameter.data.copy_(getattr(searched, name))


def test_alphas_are_out_of_sight_of_the_weight_optimizer():
    slots = SearchSlots('ssd_head', ('loc_1', 'loc_2', 'conf_1'), HIGH_LEVEL_SPACE)
    assert isinstance(slots.alphas, nn.Parameter)
    assert not slots.alphas.requires_grad
    assert slots.alphas.shape == (3, 10)
    assert list(slots.state_dict()) == ['alphas']
    assert slots.searchable


def test_weights_take_no_gradient_to_the_alphas():
    """DDP, clipping and AMP never see them: a backward pass leaves no gradient; a search may still ask for one."""
    torch.manual_seed(0)
    module = SceneModule(stages=2, genotype=None)
    y = 0.4 * torch.rand(1, 3, 4, 5)
    module(y).features[-1].sum().backward()
    assert module.slots.alphas.grad is None
    module.slots.alphas.requires_grad_()
    (gradient,) = torch.autograd.grad(module(y).features[-1].sum(), module.slots.alphas)
    assert gradient.shape == (7, 7)
    assert (gradient.abs().sum(dim=1) > 0).all()
    assert gradient.sum(dim=1).abs().max() < 1e-3 * gradient.abs().max()  # a softmax keeps the sum


def test_probabilities():
    torch.manual_seed(0)
    slots = cell_slots('scene').double()
    uniform = torch.tensor(list(slots.probabilities()['scene.last'].values()))
    assert (uniform - 1 / 7).abs().max() < 0.01, 'a search starts almost uniform'
    slots.alphas.data.normal_(std=3)
    rows = slots.probs()
    assert len(rows) == 7
    for row, alphas in zip(rows, slots.alphas, strict=True):
        torch.testing.assert_close(row, alphas.exp() / alphas.exp().sum(), rtol=1e-12, atol=0)
        torch.testing.assert_close(row.sum(), torch.ones((), dtype=torch.float64), rtol=0, atol=1e-14)
    found = slots.probabilities()
    assert tuple(found) == SLOTS
    for slot, row in zip(SLOTS, rows, strict=True):
        assert tuple(found[slot]) == SCENE_SPACE
        assert list(found[slot].values()) == row.tolist()
        assert sum(found[slot].values()) == pytest.approx(1, abs=1e-14)


def test_derive_takes_the_largest():
    slots = cell_slots('scene')
    chosen = [SCENE_SPACE[i] for i in (6, 0, 3, 5, 1, 4, 2)]
    slots.alphas.data.uniform_(-1, 0)
    choose_rows = [SCENE_SPACE.index(name) for name in chosen]
    slots.alphas.data[range(7), choose_rows] = 0.01
    assert slots.derive() == dict(zip(SLOTS, chosen, strict=True))


def test_scene_module_shares_one_architecture():
    module = SceneModule(stages=3, genotype=None)
    owners = [name for name, _ in module.named_parameters() if 'alphas' in name]
    assert owners == ['slots.alphas']
    assert [key for key in module.state_dict() if 'alphas' in key] == ['slots.alphas']
    weights = [id(p) for p in module.parameters()]
    assert len(weights) == len(set(weights))
    sizes = [sum(p.numel() for p in cell.parameters()) for cell in module.cells]
    # skip 0; 1x1: 12; 3x3: 84; residual and dilated ones alike; the 1x1 fusion 12 -> 3: 39
    assert sizes == [7 * (2 * 12 + 4 * 84) + 39] * 3
    # A change of the one row changes every stage.
    y = torch.rand(1, 3, 5, 4)
    before = module(y).illuminations
    module.slots.alphas.data[6].normal_()
    after = module(y).illuminations
    assert all((a - b).abs().max() > 0 for a, b in zip(before, after, strict=True))


def test_checkpoint_holds_the_architecture():
    module, other = SceneModule(genotype=None), SceneModule(genotype=None)
    module.slots.alphas.data.normal_()
    other.load_state_dict(module.state_dict())
    assert torch.equal(other.slots.alphas, module.slots.alphas)
    assert not other.slots.alphas.requires_grad
    assert derive_genotype(other) == derive_genotype(module)
    assert not copy.deepcopy(module).slots.alphas.requires_grad


def test_derive_genotype_of_a_searchable_module():
    torch.manual_seed(0)
    module = SceneModule(genotype=None)
    module.slots.alphas.data.normal_()
    genotype = derive_genotype(module, {'what': 'a test'})
    expected = [SCENE_SPACE[max(range(7), key=row.__getitem__)] for row in module.slots.alphas.tolist()]
    assert genotype.slots == dict(zip(SLOTS, expected, strict=True))
    assert genotype.origin == {'what': 'a test'}
    for slot in SLOTS:
        row = genotype.probabilities[slot]
        assert sum(row.values()) == pytest.approx(1)
        assert max(row, key=row.get) == genotype.slots[slot]


@pytest.mark.parametrize('name', ['ruas_enhance_journal', 'ruas_darkface_vgg16'])
def test_derive_genotype_of_a_derived_module(name):
    genotype = derive_genotype(SceneModule(genotype=name))
    assert genotype.slots == {slot: Genotype.load(name).slots[slot] for slot in SLOTS}
    assert genotype.probabilities == {}


def test_derive_genotype_joins_all_parts_of_a_model():
    head = SearchSlots('ssd_head', ['loc_1', 'conf_1'], HIGH_LEVEL_SPACE)
    choose(head, ['conv_5x5', 'dil_conv_3x3_d18'])
    model = nn.Sequential(SceneModule(stages=1), nn.ModuleDict({'head': head}))
    expected = {slot: Genotype.load('ruas_enhance_journal').slots[slot] for slot in SLOTS}
    expected |= {'ssd_head.loc_1': 'conv_5x5', 'ssd_head.conf_1': 'dil_conv_3x3_d18'}
    assert derive_genotype(model).slots == expected


def test_derive_genotype_needs_slots():
    with pytest.raises(ValueError, match='Linear'):
        derive_genotype(nn.Linear(1, 1))


def test_derived_file_builds_the_chosen_operations_only(tmp_path):
    torch.manual_seed(1)
    searched = SceneModule(stages=2, genotype=None)
    searched.slots.alphas.data.normal_()
    genotype = derive_genotype(searched)
    genotype.save(tmp_path / 'genotype.json')
    derived = SceneModule(stages=2, genotype=tmp_path / 'genotype.json')
    assert derive_genotype(derived).slots == genotype.slots
    assert not any(isinstance(module, MixedOp) for module in derived.modules())
    assert not any('alphas' in name for name in derived.state_dict())
    assert not derived.slots.searchable
    assert derived.slots.probabilities() == {}
    side = {'skip': 0, 'conv_1x1': 1, 'res_conv_1x1': 1}
    sizes = {name: 9 * side.get(name, 3) ** 2 + 3 * (name != 'skip') for name in SCENE_SPACE}
    cell = sum(sizes[name] for name in genotype.slots.values()) + 39
    assert sum(p.numel() for p in derived.parameters()) == 2 * cell
    assert all(p.requires_grad for p in derived.parameters())


@pytest.mark.parametrize(
    'indices', [(0, 1, 2, 3, 4, 5, 6), (6, 5, 4, 3, 2, 1, 0), (0, 0, 0, 0, 0, 0, 0), (4, 6, 5, 2, 0, 3, 1)]
)
def test_derived_cell_equals_the_searchable_cell(indices):
    torch.manual_seed(0)
    slots = cell_slots('noise_removal')
    searched = DistillationCell(slots, 6).double()
    slots.double()
    chosen = [SCENE_SPACE[i] for i in indices]
    choose(slots, chosen)
    genotype = {f'noise_removal.{name}': operation for name, operation in zip(CELL, chosen, strict=True)}
    derived_slots = cell_slots('noise_removal', genotype)
    derived = DistillationCell(derived_slots, 6).double()
    copy_weights(searched, derived)
    for size in [(1, 1), (3, 6)]:
        x = torch.randn(2, 6, *size, dtype=torch.float64)
        torch.testing.assert_close(derived(x, derived_slots.probs()), searched(x, slots.probs()), rtol=0, atol=1e-12)


def test_derived_scene_module_equals_the_searchable_one():
    torch.manual_seed(0)
    y = torch.rand(2, 3, 5, 6, dtype=torch.float64)
    for indices in itertools.islice(itertools.permutations(range(7)), 0, 5040, 1700):
        genotype = genotype_of(indices)
        searched = SceneModule(genotype=None).double()
        choose(searched.slots, genotype.values())
        derived = SceneModule(genotype=genotype).double()
        for ours, theirs in zip(derived.cells, searched.cells, strict=True):
            copy_weights(theirs, ours)
        for ours, expected in zip(itertools.chain(*derived(y)), itertools.chain(*searched(y)), strict=True):
            torch.testing.assert_close(ours, expected, rtol=0, atol=1e-12)
