"""The exercises on what zeros cost, on tickets, and on what pruning forgets."""

import torch

from sparselib.experiments.lessons.checking import Exercise


def of_groups(weight, n, m, largest=True):
    """Return a bool mask of the n largest (or smallest) sizes in each m consecutive inputs of an output."""
    groups = weight.abs().unflatten(1, (-1, m))
    kept = groups.topk(n, dim=-1, largest=largest).indices
    return torch.zeros_like(groups, dtype=torch.bool).scatter(-1, kept, True).flatten(1)


def of_rows(weight, n, m):
    return of_groups(weight, n * weight.shape[1] // m, weight.shape[1])


def signed(weight, n, m):
    return of_groups(weight - weight.min(), n, m)  # ranks as the weights do


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def descend(start, mask, epochs):
    """A training in small: steps towards a target, of the weights that the mask keeps."""
    weights = start * mask
    for _ in range(epochs):
        weights = weights - 0.2 * mask * (weights - torch.linspace(-1, 1, len(start)))
    return weights


def chosen_anew(train, mask, initial, fresh, trained, epochs, rounds):
    kept = torch.zeros_like(mask)
    kept[fresh.abs().topk(int(mask.sum())).indices] = True
    return train(fresh, kept, epochs)


def recalls(said, y):
    return torch.stack([(said[y == k] == k).double().mean() for k in range(int(y.max()) + 1)])


def relative(dense, sparse, y):
    """Return for each class the change of its accuracy, less the change of the accuracy on all images."""
    overall = (sparse == y).double().mean() - (dense == y).double().mean()
    return recalls(sparse, y) - recalls(dense, y) - overall


def of_all_images(dense, sparse, y):
    overall = (sparse == y).double().mean() - (dense == y).double().mean()
    change = (sparse == y).double() - (dense == y).double()
    return torch.stack([change[y == k].sum() / len(y) for k in range(int(y.max()) + 1)]) - overall


def less_mean_of_classes(dense, sparse, y):
    change = recalls(sparse, y) - recalls(dense, y)
    return change - change.mean()


def _ticket(seed):
    mask = torch.tensor([True, False, True, True, False, False])
    return (descend, mask, *(drawn(6, seed=seed + i) for i in range(3)), 2, 8)


LABELS = torch.tensor([0, 0, 0, 0, 0, 0, 1, 1, 1, 2])
DENSE = torch.tensor([0, 0, 0, 0, 0, 1, 1, 1, 1, 2])
SPARSE = torch.tensor([0, 0, 0, 0, 0, 1, 1, 2, 2, 2])
EVEN = torch.tensor([0, 0, 1, 1, 1, 1])

EXERCISES: dict[str, Exercise] = {
    "structure-units": Exercise(
        right=0.75,
        mistakes={
            "That counts the rows that go. What happens to the columns of the rows that stay?": 0.5,
            "That share stays. The question is what goes.": 0.25,
            "A weight can lose its writer and its reader at once; it goes only once.": 1.0,
        },
        why="A weight stays if its writer and its reader both stay: 1 − 0.5 · 0.5.",
    ),
    "structure-count": Exercise(
        right=7200,
        mistakes={
            "That leaves the zeros out. The layer does not know which of its numbers are zeros.": 3600,
            "The kernel stands on each place of the output, which stride 2 makes smaller than the image.": 28800,
            "That is the number of weights. Each is used once for every place of the output.": 288,
            "The kernel has 3 · 3 places: each counts.": 800,
        },
        why="4 · 3 · 3 inputs for each of 8 outputs on 5 · 5 places, zeros included.",
    ),
    "structure-mask": Exercise(
        right=of_groups,
        mistakes={
            "The groups run over the outputs. They must lie among the inputs of one output, where sums are formed.": (
                lambda weight, n, m: of_groups(weight.T, n, m).T
            ),
            "The mask keeps as many as it should remove: n of each m stay.": lambda w, n, m: of_groups(w, m - n, m),
            "The mask keeps the smallest of each group.": lambda w, n, m: of_groups(w, n, m, largest=False),
            "Negative weights always lose. What counts is how far a weight is from zero.": signed,
            "Each row keeps the right number, but some groups of m keep more than n: rank within the group.": of_rows,
            "Every weight stays. Are n and m the other way round?": lambda w, n, m: torch.ones_like(
                w, dtype=torch.bool
            ),
        },
        why="Of each m consecutive inputs of an output, the n of the largest size stay.",
        cases=[(drawn(8, 8), 2, 4), (drawn(8, 8, seed=1), 1, 4), (drawn(8, 24, seed=2)[:, :8], 1, 2)],
    ),
    "tickets-rounds": Exercise(
        right=8,
        mistakes={
            "A round removes a fifth of those that are left, not of all that there were.": 4,
            "After these rounds a little more than a fifth of the weights is left: one more is needed.": 7,
            "The last training, of the ticket itself, is no round of the search.": 9,
        },
        why="The smallest k with 0.8^k ≤ 0.2.",
    ),
    "tickets-score": Exercise(
        right=-0.2,
        mistakes={
            "That is the gradient of the weight itself under its mask. The score's is passed straight through.": 0.0,
            "That is the gradient of the effective weight. By the chain rule the weight stands beside it.": 0.4,
            "The size is right. The weight is negative: keep its sign.": 0.2,
            "That is the weight. The gradient of the loss is missing.": -0.5,
        },
        why="0.4 · (−0.5): a step against the gradient raises the score, and the weight may come back.",
    ),
    "tickets-control": Exercise(
        right=lambda train, mask, initial, fresh, trained, epochs, rounds: train(fresh, mask, epochs),
        mistakes={
            "That is the ticket itself. What the question asks about must differ from it.": (
                lambda train, mask, initial, fresh, trained, epochs, rounds: train(initial, mask, epochs)
            ),
            "The new weights got a mask of their own. Then two things differ: a gap has two reasons.": chosen_anew,
            "The control is trained longer than the ticket. A gap could be due to the time alone.": (
                lambda train, mask, initial, fresh, trained, epochs, rounds: train(fresh, mask, rounds * epochs)
            ),
            "These weights are not rewound: they have seen the data. That answers another question.": (
                lambda train, mask, initial, fresh, trained, epochs, rounds: train(trained, mask, epochs)
            ),
            "Nothing is masked. The control must be as sparse as the ticket.": (
                lambda train, mask, initial, fresh, trained, epochs, rounds: train(fresh, mask | True, epochs)
            ),
        },
        why="New weights; the mask and the training are those of the ticket. One thing differs.",
        cases=[_ticket(0), _ticket(10)],
    ),
    "forgetting-share": Exercise(
        right=6,
        mistakes={
            "Equal accuracy says how many images are right, not which ones.": 0,
            "Each network has mistakes of its own: those of the other count too.": 3,
            "That is how many both are right on, at least.": 94,
        },
        why="If no image is wrong for both, each errs on 3 where the other is right.",
    ),
    "forgetting-votes": Exercise(
        right=1,
        mistakes={
            "That counts pairs of a dense and a sparse network that differ. Count images, by each group's vote.": 4,
            "That counts images on which some network differs from its pair. Take the vote of each group first.": 3,
        },
        why="Only on the second image does the vote of the sparse networks differ from that of the dense ones.",
    ),
    "forgetting-classes": Exercise(
        right=relative,
        mistakes={
            "That is the change of each class alone. Compare it with the change on all images.": (
                lambda dense, sparse, y: recalls(sparse, y) - recalls(dense, y)
            ),
            "The sign is turned round: a class that loses more than the whole must come out negative.": (
                lambda dense, sparse, y: -relative(dense, sparse, y)
            ),
            "Divide by the images of the class, not by all: else large classes seem to lose more.": of_all_images,
            "You took off the mean over classes. Over images, each class counts as often as it occurs.": (
                less_mean_of_classes
            ),
        },
        why="The change of the class's own accuracy, less that of all images.",
        cases=[(DENSE, SPARSE, LABELS), (EVEN, torch.tensor([0, 1, 1, 1, 1, 1]), EVEN)],
    ),
}
