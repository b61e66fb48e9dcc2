import copy

import pytest
import torch

from sparselib import data, models, pruning, seeds, training
from sparselib.pruning import criteria, masks, schedules


def _net():
    return models.build("convnet", in_channels=1, num_classes=10, image_size=8, width=8, mean=0.3, std=0.4)


@pytest.mark.parametrize("structured", [False, True])
@pytest.mark.parametrize("when", schedules.WHEN)
def test_every_schedule_gives_a_trained_network_of_the_asked_sparsity(when, structured, train, test):
    net = _net()
    before = {n: t.clone() for n, t in net.state_dict().items()}
    sparse = schedules.train_sparse(
        net, train, "magnitude", 0.5, when=when, structured=structured, epochs=4, finetune_epochs=3, progress=False
    )
    assert all(torch.equal(t, before[n]) for n, t in net.state_dict().items())
    assert pruning.sparsity(sparse) == pytest.approx(0.5, abs=0.02 if structured else 1e-3)
    assert training.accuracy(sparse, test) > 0.4


def test_settled_is_the_rule_of_earlycrop():
    steep = [1.0, 1.8, 2.5, 2.9]
    assert [schedules.settled(steep[:t], 0.4) for t in (1, 2, 3, 4)] == [False, False, False, True]  # 0.4 < 1·0.6


def test_settled_at_its_limits():
    assert schedules.settled([1.0, 1.25], 0.5) and not schedules.settled([1.0, 1.5], 0.5)
    assert not schedules.settled([1.0], 0.0) and not schedules.settled([], 0.0)
    assert schedules.settled([1.0, 1.9, 2.8], 0.0) and not schedules.settled([1.0, 1.5, 2.5], 0.0)


def test_the_higher_the_limit_the_later(train):
    few = train.take(slice(0, 300))

    def when(limit):
        watch = schedules.Early(net := _net(), limit, 8, lambda model: None)
        training.fit(net, few, epochs=8, after_epoch=watch, progress=False)
        d = watch.distances
        assert all(b - a >= d[0] * (1 - limit) for a, b in zip(d[:-2], d[1:-1], strict=True)), "not before"
        return len(d)

    assert when(0.0) <= when(0.5) <= when(0.9) and when(0.0) < when(0.9)


def test_early_prunes_once_when_settled_and_the_optimiser_goes_on(train):
    torch.manual_seed(0)
    net, seen = _net(), []

    def prune(model):
        seen.append(len(watch.distances))
        pruning.step(model, "magnitude", 0.5)

    watch = schedules.Early(net, 0.5, 8, prune)
    parameters = [id(p) for p in net.parameters()]
    training.fit(net, train, epochs=10, after_epoch=watch, progress=False)
    assert len(seen) == 1 and (schedules.settled(watch.distances, 0.5) or seen == [8])
    assert sorted(id(p) for p in net.parameters()) == sorted(parameters), (
        "the optimiser's tensors are still the model's"
    )
    weight = net[4].weight.detach().clone()
    training.fit(net, train, epochs=1, progress=False)
    assert not torch.equal(weight, net[4].weight) and not net[4].weight[~masks.mask_of(net[4])].any()


def test_tickets_start_from_the_initial_weights(train, monkeypatch):
    net, starts = _net(), []
    fit = training.fit

    def spy(model, *arguments, **options):
        starts.append({n: m.weight.detach().clone() for n, m in masks.prunable(model).items()})
        return fit(model, *arguments, **options)

    monkeypatch.setattr(training, "fit", spy)
    sparse = schedules.train_sparse(
        net, train, "magnitude", 0.5, when="tickets", epochs=1, finetune_epochs=0, progress=False
    )
    assert len(starts) == 5  # 0.8⁴ < 0.5: four rounds, and the last training
    for name, layer in masks.prunable(net).items():
        mask = masks.mask_of(masks.prunable(sparse)[name])
        assert torch.equal(starts[-1][name], layer.weight * mask)
    kept = [sum(int((w != 0).sum()) for w in start.values()) for start in starts]
    total = kept[0]
    assert kept == [round(total * 0.5 ** (k / 4)) for k in range(5)]


@pytest.mark.parametrize("rewind", [0, 2])
def test_tickets_give_survivors_the_weights_of_an_early_epoch_back(rewind, train, monkeypatch):
    early = _net()

    class Enough(Exception):
        pass

    def stop(model, done):
        if done == rewind:
            raise Enough

    if rewind:
        with pytest.raises(Enough):  # the first epochs of an ordinary training, and no more
            training.fit(early, train, epochs=3, lr=2e-3, seed=5, after_epoch=stop, progress=False)
    seen, fit = [], training.fit

    def spy(model, *arguments, epochs, **options):
        seen.append((epochs, copy.deepcopy(model)))
        return fit(model, *arguments, epochs=epochs, **options)

    monkeypatch.setattr(training, "fit", spy)
    options = {"when": "tickets", "epochs": 3, "finetune_epochs": 1, "rewind": rewind, "seed": 5, "progress": False}
    schedules.train_sparse(_net(), train, "magnitude", 0.5, **options)
    for _, start in seen[1:]:
        bare = masks.bare(start).state_dict()
        for name, tensor in early.state_dict().items():
            mask = masks.mask_of(masks.prunable(start)[name]) if name in masks.prunable(start) else None
            assert torch.equal(bare[name], tensor if mask is None else tensor * mask), name
    rounds = schedules.ticket_rounds(0.5)
    assert [epochs for epochs, _ in seen] == [3, *[3 - rewind] * (rounds - 1), 4 - rewind]
    assert sum(epochs for epochs, _ in seen) == rounds * 3 + 3 + 1 - rounds * rewind


@pytest.mark.parametrize("when", ["before", "early", "after"])
@pytest.mark.parametrize("criterion", ["snip", "magnitude", "synflow"])
def test_rounds_reach_the_cut_and_cost_no_epoch(when, criterion, train, monkeypatch):
    train, scorings, epochs, fit = train.take(slice(0, 120)), [], [], training.fit
    saliency = criteria.Problem.saliency
    monkeypatch.setattr(criteria.Problem, "saliency", lambda *a: (scorings.append(len(epochs)), saliency(*a))[1])

    def spy(model, *arguments, **options):
        epochs.append(options["epochs"])
        return fit(model, *arguments, **options)

    monkeypatch.setattr(training, "fit", spy)
    own = 100 if criterion == "synflow" else 1
    for rounds in (None, 4):
        scorings.clear()
        epochs.clear()
        options = {"when": when, "rounds": rounds, "epochs": 2, "finetune_epochs": 5, "progress": False}
        sparse = schedules.train_sparse(_net(), train, criterion, 0.8, **options)
        assert pruning.sparsity(sparse) == pytest.approx(0.8, abs=1e-3) and sum(epochs) == 7
        if when == "after":  # cuts with training in between, each in the criterion's own rounds of scoring
            assert len(scorings) == own * (rounds or 1)
            assert epochs == ([2, 5] if rounds is None else [2, 1, 1, 1, 2])
            assert sorted(set(scorings)) == list(range(1, 1 + (rounds or 1)))
        else:
            assert len(scorings) == (rounds or own) and epochs == [7]


def test_gradual_raises_the_sparsity_step_by_step(train, monkeypatch):
    seen = []
    step = pruning.step_to
    monkeypatch.setattr(pruning, "step_to", lambda m, c, s, *a, **k: (seen.append(s), step(m, c, s, *a, **k))[1])
    schedules.train_sparse(_net(), train, "magnitude", 0.8, when="gradual", epochs=6, finetune_epochs=2, progress=False)
    assert seen == sorted(seen) and len(seen) == 4 and seen[-1] == pytest.approx(0.8)


def test_bad_arguments_are_named(train):
    for options, message in [
        ({"when": "during"}, "unknown when 'during'"),
        ({"limit": 1.0}, r"limit must be in \[0, 1\), got 1.0"),
        ({"epochs": 0}, "epochs must be at least 1, got 0"),
        ({"rounds": 0}, "rounds must be at least 1, got 0"),
        ({"rewind": 20, "when": "tickets"}, "rewind must be .*19.*got 20"),
        ({"rewind": 1}, "rewind is for when='tickets', got 1 for 'after'"),
    ]:
        with pytest.raises(ValueError, match=message):
            schedules.train_sparse(_net(), train, "magnitude", 0.5, **options)


FIT = {"batch_size": 32, "weight_decay": 0.01, "progress": False}
CUT = {"scope": "layer"}


def _all(**options):
    """Every option another than its default."""
    return {"epochs": 4, "finetune_epochs": 2, "lr": 3e-3, "finetune_lr": 5e-4, "scored": 40, "seed": 3} | {
        **FIT, **CUT, **options
    }  # fmt: skip


def _same(one, other):
    states = one.state_dict(), other.state_dict()
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(tensor, states[1][name]) for name, tensor in states[0].items())


@pytest.fixture(scope="module")
def little(train):
    few = train.take(slice(0, 150))
    chosen = data.balanced(few, 40, seed=3)
    return few, (chosen.x, chosen.y)


@pytest.mark.parametrize("criterion", ["random", "snip"])
@pytest.mark.parametrize("structured", [False, True])
def test_before_and_after_are_cuts_and_trainings_written_down(criterion, structured, little):
    few, scored = little
    cut = {"structured": structured, **CUT}
    net = pruning.prune(_net(), criterion, 0.6, *scored, rounds=3, seed=3, **cut)
    training.fit(net, few, epochs=6, lr=3e-3, seed=3, **FIT)
    found = schedules.train_sparse(_net(), few, criterion, 0.6, **_all(when="before", rounds=3, structured=structured))
    _same(found, net)
    net = _net()
    training.fit(net, few, epochs=4, lr=3e-3, seed=3, **FIT)
    dense = copy.deepcopy(net)
    for k, epochs in ((1, 1), (2, 2)):  # three epochs after two cuts
        pruning.step_to(net, criterion, 1 - 0.4 ** (k / 2), *scored, seed=seeds.derive(3, "round", k), **cut)
        training.fit(net, few, epochs=epochs, lr=5e-4, seed=seeds.derive(3, "fine-tuning", k), **FIT)
    options = _all(when="after", rounds=2, structured=structured, finetune_epochs=3)
    _same(schedules.train_sparse(_net(), few, criterion, 0.6, **options), net)
    options = {"rounds": 2, "epochs": 3, "lr": 5e-4, "scored": 40, "seed": 3, **cut, **FIT}
    _same(schedules.finetuned(dense, few, criterion, 0.6, **options), net)


@pytest.mark.parametrize("structured", [False, True])
def test_early_and_gradual_are_cuts_within_one_training_written_down(structured, little):
    few, scored = little
    cut = {"structured": structured, "seed": 3, **CUT}
    for limit, fine in ((0.0, 0), (0.99, 2)):  # settled before, or finetune_epochs before the end
        net, start, moved = _net(), torch.cat([m.weight.flatten() for m in masks.prunable(_net()).values()]), []

        def early(model, done, start=start, moved=moved, limit=limit):
            if not any(masks.mask_of(layer) is not None for layer in masks.prunable(model).values()):
                now = torch.cat([m.weight.flatten() for m in masks.prunable(model).values()])
                moved.append(((now - start).norm() / start.norm()).item())
                if done == 4 or (done > 1 and moved[-1] - moved[-2] < moved[0] * (1 - limit)):
                    pruning.step_to(model, "snip", 0.6, *scored, rounds=2, **cut)

        training.fit(net, few, epochs=4 + fine, lr=3e-3, seed=3, after_epoch=early, **FIT)
        assert len(moved) == (4 if limit else 3), moved
        options = _all(when="early", limit=limit, rounds=2, structured=structured, finetune_epochs=fine)
        _same(schedules.train_sparse(_net(), few, "snip", 0.6, **options), net)
    net = _net()

    def gradual(model, done):
        if done in (2, 3, 4, 5):  # six epochs: the middle half is from 1.5 to 4.5
            part = min(1, (done - 1.5) / 3)
            pruning.step_to(model, "snip", 0.6 * (1 - (1 - part) ** 3), *scored, **cut)

    training.fit(net, few, epochs=6, lr=3e-3, seed=3, after_epoch=gradual, **FIT)
    _same(schedules.train_sparse(_net(), few, "snip", 0.6, **_all(when="gradual", structured=structured)), net)


def test_tickets_are_trainings_cuts_and_rewinds_written_down(little):
    few, scored = little
    start = _net()

    def keep(model, done):
        if done == 1:
            start.load_state_dict(model.state_dict())

    net = _net()
    for k in (1, 2, 3):  # 0.8 ** 3 < 0.6 < 0.8 ** 2
        training.fit(net, few, epochs=4 if k == 1 else 3, lr=3e-3, seed=3, after_epoch=keep if k == 1 else None, **FIT)
        pruning.step_to(net, "snip", 1 - 0.6 ** (k / 3), *scored, seed=3, **CUT)
        masks.set_masks(start, {name: masks.mask_of(layer) for name, layer in masks.prunable(net).items()})
        net = copy.deepcopy(start)
    training.fit(net, few, epochs=5, lr=3e-3, seed=3, **FIT)
    _same(schedules.train_sparse(_net(), few, "snip", 0.4, **_all(when="tickets", rewind=1)), net)


def test_rounds_of_tickets_are_fifths():
    assert [schedules.ticket_rounds(s) for s in (0.0, 0.1, 0.2, 0.21, 0.35, 0.4, 0.5, 0.9)] == [0, 1, 1, 2, 2, 3, 4, 11]


def test_without_sparsity_tickets_are_one_training(little):
    few, _ = little
    net = _net()
    training.fit(net, few, epochs=6, lr=3e-3, seed=3, **FIT)
    _same(schedules.train_sparse(_net(), few, "magnitude", 0.0, **_all(when="tickets", rewind=1)), net)


def test_defaults_of_schedules_are_what_they_say(train):
    few = train.take(slice(0, 64))
    said = {"when": "after", "epochs": 20, "finetune_epochs": 10, "batch_size": 64, "lr": 2e-3, "finetune_lr": 1e-3}
    said |= {"scored": 512, "seed": 0, "structured": False, "scope": "global", "rounds": None, "rewind": 0}
    net = schedules.train_sparse(_net(), few, "snip", 0.6, progress=False)
    _same(net, schedules.train_sparse(_net(), few, "snip", 0.6, progress=False, **said))
    said = {"epochs": 10, "batch_size": 64, "lr": 1e-3, "scored": 512, "seed": 0, "rounds": 1}
    assert len({tuple(layer.weight.flatten()[:3].tolist()) for layer in masks.prunable(net).values()}) > 1
    dense = _net()
    ours = schedules.finetuned(dense, few, "snip", 0.6, progress=False)
    _same(ours, schedules.finetuned(dense, few, "snip", 0.6, progress=False, **said))


def test_numbers_at_their_limits_are_taken_and_beyond_them_named(little):
    few, _ = little
    least = {"epochs": 1, "finetune_epochs": 0, "limit": 0, "rewind": 0, "batch_size": 2, "scored": 1, "rounds": 1}
    schedules.train_sparse(_net(), few, "magnitude", 0, progress=False, **least)
    schedules.train_sparse(_net(), few, "magnitude", 0, when="tickets", epochs=1, finetune_epochs=0, progress=False)
    schedules.finetuned(_net(), few, "magnitude", 0, epochs=0, progress=False)
    for options, message in [
        ({"finetune_epochs": -1}, "finetune_epochs must be at least 0, got -1"),
        ({"finetune_lr": 0.0}, r"finetune_lr must be in \(0, inf\], got 0.0"),
        ({"lr": 0.0}, r"lr must be in \(0, inf\], got 0.0"),
        ({"limit": -0.1}, r"limit must be in \[0, 1\), got -0.1"),
        ({"rewind": -1}, r"rewind must be in 0\.\.19, got -1"),
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"scored": 0}, "scored must be at least 1, got 0"),
        ({"scope": "all"}, "unknown scope 'all'"),
    ]:
        with pytest.raises(ValueError, match=message):
            schedules.train_sparse(_net(), few, "magnitude", 0.5, **options)
    for options, message in [
        ({"epochs": -1}, "epochs must be at least 0, got -1"),
        ({"rounds": 0}, "rounds must be at least 1, got 0"),
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"lr": 0.0}, r"lr must be in \(0, inf\], got 0.0"),
        ({"scope": "all"}, "unknown scope 'all'"),
    ]:
        with pytest.raises(ValueError, match=message):
            schedules.finetuned(_net(), few, "magnitude", 0.5, **options)
    with pytest.raises(ValueError, match=r"sparsity must be in \[0, 1\), got 1"):
        schedules.finetuned(_net(), few, "magnitude", 1)
    with pytest.raises(ValueError, match="unknown criterion 'magnitud'"):
        schedules.finetuned(_net(), few, "magnitud", 0.5)
    with pytest.raises(ValueError, match="train must not be empty"):
        schedules.finetuned(_net(), few.take(slice(0, 0)), "magnitude", 0.5)
