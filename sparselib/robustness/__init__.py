"""What disturbs a network, and how to tell whether it holds: attacks, shifts, certificates, ensembles, objectives."""
