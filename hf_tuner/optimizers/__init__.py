"""How weights move: parameter groups, one file each."""
