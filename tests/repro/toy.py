"""Steps that cost next to nothing, for tests of the machinery. As a program: compute a grid of them.

python toy.py STORE [jobs=2] [scheduler=tcp://…] [nets=3] [numbers=4] [seconds=0.1] [log=FILE]
"""

import os
import signal
import sys
import time
from typing import ClassVar

import torch

from sparselib import models
from sparselib.repro import runner
from sparselib.repro.step import Step, row
from sparselib.repro.store import Store

# What makes something at a path that is no regular file.
ODD = (
    os.mkfifo, os.mkdir, lambda path: os.symlink(path, path), lambda path: os.symlink("/dev/zero", path),
    lambda path: os.symlink("/dev/null", path),
) if os.name == "posix" else (os.mkdir,)  # fmt: skip


class Toy(Step):
    seconds: float = 0.0
    log: str = ""  # a line is added to this file whenever a step is computed

    def code(self):
        return {"toy": os.environ.get("TOY_CODE", "1")}

    def chosen(self):
        return (models.MODELS["convnet"][0],)

    def note(self):
        if self.log:
            with open(self.log, "a", encoding="utf-8") as file:
                file.write(f"{self.what} {os.getpid()}\n")
        time.sleep(self.seconds)


class Net(Toy):
    """An untrained network."""

    makes_network: ClassVar[bool] = True
    seed: int

    def columns(self):
        return {"seed": self.seed}

    def compute(self, load):
        self.note()
        net = models.build("convnet", in_channels=1, num_classes=2, image_size=8, width=4, seed=self.seed)
        return [row("weight", next(net.parameters()).detach().sum())], net.eval()


class Number(Toy):
    """What the network says to one input; `dies`: the worker dies of it, once (a file to remember that) or always."""

    net: Net
    n: int
    dies: str = ""
    spoils: bool = False  # changes the network that it was given

    def inputs(self):
        return (self.net,)

    def columns(self):
        return {"seed": self.net.seed, "n": self.n}

    def compute(self, load):
        self.note()
        if self.dies:
            try:
                if self.dies != "always":
                    open(self.dies, "x", encoding="utf-8").close()
                os.kill(os.getpid(), signal.SIGKILL)
            except FileExistsError:  # this step, or another one, has died already
                pass
        if self.n < 0:
            raise ValueError(f"n must be at least 0, got {self.n}")
        net = load(self.net)
        logits = net(torch.full((1, 1, 8, 8), self.n / 10))[0].detach()
        if self.spoils:
            next(net.parameters()).data.zero_()
        return [row("value", value, logit=i) for i, value in enumerate(logits)], None


def grid(nets=3, numbers=4, seconds=0.0, log="", **more):
    """Return the Numbers of some Nets."""
    made = [Net(seed=s, seconds=seconds, log=log) for s in range(nets)]
    return [Number(net=net, n=n, seconds=seconds, log=log, **more) for net in made for n in range(numbers)]


def values(steps, store):
    rows = runner.rows([({}, step) for step in steps], store)
    return rows[["seed", "n", "logit", "value"]].values.tolist()


def main(folder, *options):
    given = dict(option.split("=", 1) for option in options)
    how = {"jobs": int(given.pop("jobs", 1)), "scheduler": given.pop("scheduler", None)}
    kinds = {"nets": int, "numbers": int, "seconds": float, "log": str}
    runner.compute(grid(**{name: kinds[name](value) for name, value in given.items()}), Store(folder), **how)


if __name__ == "__main__":
    import toy  # so that the steps are of the module toy, which the workers can import, not of __main__

    toy.main(*sys.argv[1:])
