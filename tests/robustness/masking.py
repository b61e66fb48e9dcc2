"""What several tests of robustness share: distances, radii, and networks that hide their gradients."""

import torch
from torch import nn

from sparselib import training

EPS = {"linf": 0.1, "l2": 0.8}


def distance(a, b, norm):
    return (a - b).flatten(1).norm(dim=1, p=torch.inf if norm == "linf" else 2)


def right(net, x, y):
    return training.logits(net, x).argmax(1) == y


class Around(nn.Module):
    """A network with something done to its input or output."""

    def __init__(self, net, function):
        super().__init__()
        self.net, self.function = net, function

    def forward(self, x):
        return self.function(self.net, x)


class _Backwards(torch.autograd.Function):
    """The identity, with the gradient's sign turned round."""

    @staticmethod
    def forward(_, x):
        return x.clone()

    @staticmethod
    def backward(_, gradient):
        return -gradient


MASKED = {
    "saturated": lambda net, x: 1e4 * net(x),
    "quantised": lambda net, x: net((8 * x).round() / 8),
    "detached": lambda net, x: net((8 * x).to(torch.uint8).to(x) / 8),
    "backwards": lambda net, x: net(_Backwards.apply(x)),
    "random": lambda net, x: net(x + 0.5 * torch.randn_like(x)),
}
