"""Rules that are true without any neighbour. Standard library only."""
