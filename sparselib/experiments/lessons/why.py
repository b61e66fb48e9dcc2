"""The exercises of the part on why: what an answer to an unusual input is worth, and the first steps."""

import torch

from sparselib.experiments.lessons.checking import Exercise


def _outcomes(said, scores, labels, threshold):
    return [_outcome(k == y, score > threshold) for k, score, y in zip(said, scores, labels, strict=True)]


def _ties(said, scores, labels, threshold):
    return [_outcome(k == y, score >= threshold) for k, score, y in zip(said, scores, labels, strict=True)]


def _below(said, scores, labels, threshold):
    return [_outcome(k == y, score < threshold) for k, score, y in zip(said, scores, labels, strict=True)]


def _right_first(said, scores, labels, threshold):
    return [
        "right" if k == y else _outcome(False, score > threshold)
        for k, score, y in zip(said, scores, labels, strict=True)
    ]


def _outlier_is_right(said, scores, labels, threshold):
    return [_outcome(k == y or y == -1, score > threshold) for k, score, y in zip(said, scores, labels, strict=True)]


def _outcome(right, rejected):
    return "rejected" if rejected else "right" if right else "wrong and unnoticed"


def _allowed(x, changed, eps, *, size=torch.abs, most=lambda moved: moved.amax(1), inside=True):
    """Return for each image whether no pixel has moved by more than eps, and none has left [0, 1].

    size: of a pixel's change. most: of the changes (N, D) of an image. inside: whether to ask for [0, 1]. All but the
    defaults are mistakes.
    """
    near = most(size(changed - x).flatten(1)) <= eps + 1e-6
    return near & (((changed >= 0) & (changed <= 1)).flatten(1).all(1) | (not inside))


_CLEAN = torch.tensor([[0.2, 0.5], [0.2, 0.5], [0.95, 0.5], [0.2, 0.5], [0.5, 0.5]]).view(5, 1, 1, 2)
_MOVED = torch.tensor([[0.3, 0.4], [0.05, 0.5], [1.05, 0.5], [0.35, 0.5], [0.6, 0.6]]).view(5, 1, 1, 2)

EXERCISES: dict[str, Exercise] = {
    "quickstart-constant": Exercise(
        right=0.5,
        mistakes={
            "No anomaly scores above an ordinary input, but none scores below one either: what does a tie count?": 0.0,
            "No ordinary input scores above an anomaly, but they tie. What does a tie count?": 1.0,
        },
        why="All pairs are ties, and a tie counts one half: chance.",
    ),
    "quickstart-under-attack": Exercise(
        right=0.72,
        mistakes={
            "The two that were wrong before are still wrong. Count the images that are right now.": 0.76,
            "That is a share of the images that were right before. Accuracy is a share of all images.": 0.75,
            "That is the accuracy on clean images.": 0.96,
            "That is what the attack has broken, as a share of all images.": 0.24,
        },
        why="48 − 12 of 50: what was wrong before counts as wrong.",
    ),
    "quickstart-allowed": Exercise(
        right=_allowed,
        mistakes={
            "A pixel that has become darker by too much passes. A change has a size, whatever its sign.": (
                lambda x, changed, eps: _allowed(x, changed, eps, size=lambda moved: moved)
            ),
            "Pixels outside [0, 1] pass: such an image cannot be shown to anyone.": (
                lambda x, changed, eps: _allowed(x, changed, eps, inside=False)
            ),
            "That is the mean change of the pixels. One pixel may not move farther because others stay.": (
                lambda x, changed, eps: _allowed(x, changed, eps, most=lambda moved: moved.mean(1))
            ),
            "That is the length of the change, its norm in L2. Here each pixel has the whole radius for itself.": (
                lambda x, changed, eps: _allowed(x, changed, eps, most=lambda moved: moved.norm(dim=1))
            ),
            "One answer for all images: ask each of them.": lambda x, changed, eps: _allowed(x, changed, eps).all(),
        },
        why="Each pixel of each image is asked twice: how far it has moved, and where it is.",
        cases=[(_CLEAN, _MOVED, 0.1), (_CLEAN, _MOVED, 0.16)],
    ),
    "unusual-random": Exercise(
        right=0.05,
        mistakes={
            "One half is the AUROC of such a detector, which is over all thresholds; here the threshold is fixed.": 0.5,
            "That is the share that passes.": 0.95,
            "Nothing is known of the input, but a share of all inputs is rejected whatever they are.": 0.0,
        },
        why="Scores that do not depend on the input are spread alike on all inputs, so the same share is rejected.",
    ),
    "unusual-share": Exercise(
        right=0.9,
        mistakes={
            "Some images are both right and rejected, and are counted twice here.": 1.1,
            "These are right and not rejected; rejected images count as well.": 0.4,
            "These are rejected and were wrong; the right ones count as well.": 0.3,
            "That is the share of wrong and unnoticed images.": 0.1,
        },
        why="The two overlap, so the overlap is taken off once; what is left out is wrong and unnoticed.",
    ),
    "unusual-outcomes": Exercise(
        right=_outcomes,
        mistakes={
            "Look at a score that equals the threshold: it does not lie above.": _ties,
            "A higher score means more anomalous. Which side is rejected?": _below,
            "A rejected input gets no answer, so it does not matter what the answer would have been.": _right_first,
            "For the label -1 no class is right, so such an input is rejected or wrong.": _outlier_is_right,
        },
        why="First ask whether an answer is given at all, then whether it is right.",
        cases=[
            ([7, 7, 1, 1], [-0.9, -0.6, -0.9, -0.6], [7, 7, 7, 7], -0.7),
            ([3, 3, 5], [-0.7, -0.71, -0.69], [3, -1, -1], -0.7),
        ],
    ),
}
