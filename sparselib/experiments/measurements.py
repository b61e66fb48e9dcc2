"""The steps that measure networks: under attack, under shifts, as detectors of anomalies, by certificate, by cost.

Everything is measured on the test samples. Steps of one network run together, so what they share is kept for a while.
"""

import statistics
import time
from typing import Any, ClassVar

import torch

from sparselib import data, training
from sparselib.detection import detectors, metrics
from sparselib.experiments.networks import Network, NetworkStep
from sparselib.experiments.samples import OUTLIERS, family, inliers, outliers, shifted, some, strength
from sparselib.models import device_of
from sparselib.pruning import costs
from sparselib.repro.step import Step, row
from sparselib.robustness import attacks, certify, ensembles, shifts

BATCH = 256  # images in what is timed
STEPS = 10  # of PGD, where attacked inputs are to be detected
STEP = 0.25  # of PGD, of its radius: long enough that more steps and restarts find little more
ATTACKED = 200  # and so many test samples at most
FALSE_ALARMS = 0.05  # the share of clean test images that may be rejected
ATTACKS = {"pgd": attacks.pgd}  # by name, so that detecting outliers does not depend on the code of attacks
TABLES = NetworkStep.tables | {
    "sparselib.detection.detectors.DETECTORS",
    "sparselib.experiments.measurements.ATTACKS",
    "sparselib.experiments.networks.Network",
    "sparselib.robustness.shifts.SHIFTS",
}


class Measurement(Step, frozen=True):
    """Rows about one network."""

    tables: ClassVar[frozenset[str]] = TABLES
    model: Network

    def inputs(self):
        return (self.model,)

    def fingerprints(self):
        return self.model.fingerprints()

    def columns(self):
        return self.model.columns()


class Attacked(Measurement, frozen=True):
    """Accuracy under one attack of radius eps, and "accuracy_clean" on the same images.

    FGSM and PGD run up the cross-entropy and up the margin; "accuracy" counts what withstands both, and all restarts.
    """

    attack: str  # fgsm or pgd
    norm: str = "linf"
    eps: float
    steps: int = 40
    restarts: int = 2
    limit: int | None = None  # use only so many test samples, equally many of each class

    def columns(self):
        return {**self.model.columns(), "task": "attack", "attack": self.attack, "norm": self.norm, "eps": self.eps}

    def compute(self, load):
        if self.attack == "fgsm":  # PGD of one full step from x itself; attacks.fgsm knows the cross-entropy only
            options = {"steps": 1, "step": 1.0, "random_start": False}
        else:
            options = {"steps": self.steps, "restarts": self.restarts, "seed": self.model.seed}
        net, test = _loaded(self.model, load), some(self.model.data, self.limit)
        clean, left = _withstood(net, test, self.eps, norm=self.norm, **options)
        return [row("accuracy", left.double().mean()), row("accuracy_clean", clean.double().mean())], None


class Multitargeted(Attacked, frozen=True):
    """As `Attacked` by PGD; and what withstands it is attacked towards every other class."""

    attack: str = "multitargeted"
    towards: int = 3  # restarts for each class

    def compute(self, load):
        net, test, seed = _loaded(self.model, load), some(self.model.data, self.limit), self.model.seed
        options = {"norm": self.norm, "steps": self.steps, "seed": seed}
        clean, left = _withstood(net, test, self.eps, restarts=self.restarts, **options)
        x, y = _on(net, test.x)[left], _on(net, test.y)[left]
        step = {"step_size": float(STEP * self.eps), "restarts": self.towards}
        attacked = attacks.multitargeted(net, x, y, self.eps, **step, **options)
        left[left.clone()] = training.logits(net, attacked).argmax(1) == y
        return [row("accuracy", left.double().mean()), row("accuracy_clean", clean.double().mean())], None


class AutoAttacked(Measurement, frozen=True):
    """Accuracy under AutoAttack in L∞ on a few test images; "accuracy_pgd" is that under PGD on the same images."""

    eps: float
    steps: int = 40  # of PGD
    restarts: int = 2
    limit: int

    def columns(self):
        own = {"task": "attack", "attack": "autoattack", "norm": "linf", "eps": self.eps}
        return {**self.model.columns(), **own}

    def compute(self, load):
        net, test = _loaded(self.model, load), some(self.model.data, self.limit)
        x, y, seed = _on(net, test.x), _on(net, test.y), self.model.seed
        right = training.logits(net, attacks.autoattack(net, x, y, self.eps, seed=seed)).argmax(1) == y
        _, left = _withstood(net, test, self.eps, steps=self.steps, restarts=self.restarts, seed=seed)
        return [row("accuracy", right.double().mean()), row("accuracy_pgd", left.double().mean())], None


def _withstood(net, test, eps, step=STEP, **options):
    """Return which samples (N,) are right, and which stay right under PGD up either loss, in steps of step·eps."""
    x, y = _on(net, test.x), _on(net, test.y)
    clean = training.logits(net, x).argmax(1) == y
    attacked = attacks.pgd(net, x, y, eps, step_size=float(step * eps), loss="both", early_stop=True, **options)
    return clean, clean & (training.logits(net, attacked).argmax(1) == y)


class Shifted(Measurement, frozen=True):
    """Accuracy under one kind of shift."""

    kind: str
    severity: int

    def chosen(self):
        return (shifts.SHIFTS[self.kind],)

    def columns(self):
        return {**self.model.columns(), "task": "shift", "shift": self.kind, "severity": self.severity}

    def compute(self, load):
        samples = shifted(self.model.data, self.kind, self.severity)
        value = training.accuracy(_loaded(self.model, load), samples)
        return [row("accuracy", value)], None


class Detection(Measurement, frozen=True):
    """How well a detector on a network tells the test samples from one kind of anomaly.

    `anomaly`: "pgd:<eps>" (attacked test samples, L∞), "<shift>:<severity>", or a kind of `data.outliers`.
    """

    detector: str
    options: tuple[tuple[str, Any], ...] = ()
    anomaly: str

    def fingerprints(self):
        found = super().fingerprints()
        if family(self.anomaly) in OUTLIERS and self.anomaly not in data.SYNTHETIC:
            found["anomaly"] = outliers(self.model.data, self.anomaly).fingerprint
        return found

    def chosen(self):
        head, _ = strength(self.anomaly)
        tables = (data.SYNTHETIC, shifts.SHIFTS, ATTACKS)
        return (detectors.DETECTORS[self.detector], *(table[head] for table in tables if head in table))

    def columns(self):
        own = {"detector": named(self.detector, self.options), "anomaly": self.anomaly, "family": family(self.anomaly)}
        return {**self.model.columns(), "task": "anomaly", **own}

    def compute(self, load):
        detector, inside = _fitted(self.model, self.detector, self.options, load)
        x, right = _anomalous(self.model, self.anomaly, load)
        outside = detector.score(x)
        limit = metrics.threshold(inside, FALSE_ALARMS)
        return [
            row("auroc", metrics.auroc(inside, outside)),
            row("aupr_ood", metrics.aupr(inside, outside)),
            row("fpr95_ood", metrics.fpr_at_95_tpr(inside, outside)),
            row("ror", metrics.right_or_rejected(outside, right, limit)),
            row("right", right.double().mean()),
        ], None


class Evaded(Measurement, frozen=True):
    """Right or rejected under an attack that knows the detector, the worst of several weights; and without it.

    See `attacks.adaptive`. "ror_plain" is the same share under PGD, which knows the network only.
    """

    detector: str
    options: tuple[tuple[str, Any], ...] = ()
    eps: float
    steps: int = 40
    weights: tuple[float, ...] = (0.0, 0.2, 0.5)
    limit: int | None = None

    def chosen(self):
        return (detectors.DETECTORS[self.detector],)

    def columns(self):
        own = {"task": "evasion", "attack": "adaptive", "norm": "linf", "eps": self.eps}
        return {**self.model.columns(), **own, "detector": named(self.detector, self.options)}

    def compute(self, load):
        detector, inside = _fitted(self.model, self.detector, self.options, load)
        net, test = _loaded(self.model, load), some(self.model.data, self.limit)
        x, y = _on(net, test.x), _on(net, test.y)
        limit = metrics.threshold(inside, FALSE_ALARMS)

        def stand(attacked):  # the share that is right, or rejected
            right = training.logits(net, attacked).argmax(1) == y
            return metrics.right_or_rejected(detector.score(attacked), right, limit)

        usual: dict[str, Any] = {"steps": self.steps, "step_size": STEP * self.eps, "seed": self.model.seed}
        plain = attacks.pgd(net, x, y, self.eps, loss="margin", **usual)
        score, weights = detector.differentiable, list(self.weights)
        knowing = attacks.adaptive(net, x, y, self.eps, score, limit, weights=weights, early_stop=True, **usual)
        return [row("ror", stand(knowing)), row("ror_plain", stand(plain))], None


class Certified(Measurement, frozen=True):
    """The share of test samples that are right and certified at a radius, by randomized smoothing, and its cost."""

    sigma: float
    radius: float
    n: int
    limit: int

    def columns(self):
        return {**self.model.columns(), "task": "certificate"}

    def compute(self, load):
        net, test = _loaded(self.model, load), some(self.model.data, self.limit)
        x, y = _on(net, test.x), _on(net, test.y)
        started = time.perf_counter()
        predicted, radius = certify.certify(net, x, self.sigma, n=self.n, n0=min(100, self.n), seed=self.model.seed)
        seconds = time.perf_counter() - started
        return [
            row("accuracy", (predicted == y).double().mean()),
            row("certified", ((predicted == y) & (radius >= self.radius)).double().mean()),
            row("abstained", (predicted == certify.ABSTAIN).double().mean()),
            row("macs", (self.n + min(100, self.n)) * costs.cost(net, x[:1], repeats=1).macs),
            row("time", seconds / len(test)),
        ], None


class Scored(Measurement, frozen=True):
    """What a score costs, per image: measured seconds, the median of `repeats` runs over one batch."""

    detector: str
    options: tuple[tuple[str, Any], ...] = ()
    repeats: int = 5

    def chosen(self):
        return (detectors.DETECTORS[self.detector],)

    def columns(self):
        return {**self.model.columns(), "task": "score", "detector": named(self.detector, self.options)}

    def compute(self, load):
        net, x = load(self.model), _batch(self.model.data)
        detector = detectors.build(self.detector, **dict(self.options)).fit(net, self.model.origin.samples())
        seconds = _seconds(lambda: detector.score(_on(net, x)), self.repeats)
        return [row("time", seconds / len(x))], None


class Ensembled(Step, frozen=True):
    """A deep ensemble: accuracy, calibration, accuracy under attack, detection by MSP and by disagreement, cost.

    One member is a network by itself: what the ensemble is compared with.
    """

    members: tuple[Network, ...]
    eps: float
    anomalies: tuple[str, ...]
    repeats: int = 5
    tables: ClassVar[frozenset[str]] = TABLES

    def inputs(self):
        return self.members

    def fingerprints(self):
        found = self.members[0].fingerprints()
        for name in self.anomalies:
            if family(name) in OUTLIERS and name not in data.SYNTHETIC:
                found[name] = outliers(self.members[0].data, name).fingerprint
        return found

    def chosen(self):
        heads = [strength(name)[0] for name in self.anomalies]
        return tuple(table[head] for table in (data.SYNTHETIC, shifts.SHIFTS) for head in heads if head in table)

    def columns(self):
        return {**self.members[0].columns(), "task": "ensemble", "members": len(self.members)}

    def compute(self, load):
        nets, chosen = [_loaded(member, load) for member in self.members], self.members[0].data
        net = ensembles.Ensemble(nets).eval()
        test, seed = inliers(chosen, "test"), self.members[0].seed
        x, y = _on(nets[0], test.x), _on(nets[0], test.y)
        logits = training.logits(net, x)
        _, robust = _withstood(net, test, self.eps, steps=STEPS, seed=seed)
        batch = _on(nets[0], _batch(chosen))
        cost = [costs.cost(member, batch, repeats=self.repeats) for member in nets]
        rows = [
            row("accuracy", (logits.argmax(1) == y).double().mean()),
            row("accuracy", robust.double().mean(), attack="pgd", norm="linf", eps=self.eps),
            row("params", sum(c.params for c in cost)),
            row("macs", sum(c.macs for c in cost) / BATCH),
            row("peak_bytes", max(c.peak_bytes for c in cost)),
            row("time", sum(c.seconds for c in cost) / len(batch)),
        ]
        scores: dict[str, Any] = {"msp": lambda z: -training.logits(net, z).softmax(1).amax(1)}
        if len(nets) > 1:
            scores["disagreement"] = net.disagreement
        inside = {name: score(x) for name, score in scores.items()}
        for anomaly in self.anomalies:
            outside, _ = _against(net, chosen, anomaly, seed)
            for name, score in scores.items():
                value = metrics.auroc(inside[name], score(outside))
                rows.append(row("auroc", value, detector=name, anomaly=anomaly, family=family(anomaly)))
        return rows, None


def named(detector: str, options: tuple[tuple[str, Any], ...]) -> str:
    """Return the text that stands for a detector and its options among parameters: see `fields.detector`."""
    told = [(name, str(value).lower() if isinstance(value, bool) else value) for name, value in options]
    return " ".join([detector, *(f"{name}:{value}" for name, value in told)])


def _remembered(size):
    """Cache the last `size` results of a function by all its arguments but the last, `load`."""

    def decorate(function):
        kept = {}

        def call(*arguments):
            *key, load = arguments
            key = tuple(key)
            if key not in kept:
                if len(kept) >= size:
                    kept.pop(next(iter(kept)))
                kept[key] = function(*key, load)
            return kept[key]

        return call

    return decorate


@_remembered(16)
def _anomalous(model, name, load):
    """Return the anomalous inputs called `name` to a network step, and which of them (N,) it classifies rightly."""
    net = _loaded(model, load)
    x, y = _against(net, model.data, name, model.seed)
    return x, training.logits(net, x).argmax(1) == _on(net, y)


@_remembered(32)
def _fitted(model, name, options, load):
    """Return a detector fitted to the network of a step with the labels it was trained on, and its test scores."""
    net = load(model)
    detector = detectors.build(name, **dict(options)).fit(net, model.origin.samples())
    return detector, detector.score(_on(net, inliers(model.data, "test").x))


def _against(net, chosen, name, seed):
    """Return the anomalous inputs called `name` to a network, on its device, and their labels (−1: outliers)."""
    kind, (head, rest) = family(name), strength(name)
    if kind == "attacks":
        test = some(chosen, ATTACKED)
        x = ATTACKS["pgd"](
            net, _on(net, test.x), _on(net, test.y), float(rest), steps=STEPS, step_size=STEP * float(rest), seed=seed
        )
        return x, test.y
    samples = shifted(chosen, head, int(rest)) if kind == "shifts" else outliers(chosen, name)
    return _on(net, samples.x), samples.y


def _loaded(model, load):
    """Return the network of a step with its weights channels last, in which a processor's convolutions are faster."""
    return load(model).to(memory_format=torch.channels_last)


def _batch(chosen):
    """Return BATCH test images, the same ones again where there are fewer."""
    x = inliers(chosen, "test").x
    return x[torch.arange(BATCH) % len(x)]


def _on(net, tensor):
    return tensor.to(device_of(net))


def _seconds(run, repeats):
    """Return the median seconds of a run that ends with its result on the CPU; the first is left out."""
    times = []
    for _ in range(repeats + 1):
        started = time.perf_counter()
        run().cpu()
        times.append(time.perf_counter() - started)
    return statistics.median(times[1:])
