"""The exercises of the part on why: what an answer to an unusual input is worth."""

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


EXERCISES: dict[str, Exercise] = {
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
