"""How good the answers are: one file per metric, found by its name."""
