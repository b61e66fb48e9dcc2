"""Which inputs a network does not know: detectors (SensNorm and its rivals), per-sample sensitivity, metrics."""
