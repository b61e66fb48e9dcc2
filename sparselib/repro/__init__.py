"""How a figure is made: parameters, cells, store, runner, notebooks, gates, command line."""
