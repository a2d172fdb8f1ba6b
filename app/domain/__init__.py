"""Domain rules: pure, no I/O, standard library only."""
