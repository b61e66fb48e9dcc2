"""Which weights of a network may go, when, and what that saves: criteria, masks, schedules, subnetworks, costs."""

from sparselib.pruning.units import shrink
from sparselib.pruning.weights import prune, sparsity, step, step_to

__all__ = ["prune", "shrink", "sparsity", "step", "step_to"]
