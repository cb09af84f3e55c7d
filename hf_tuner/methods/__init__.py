"""Which weights move: methods, one file each."""
