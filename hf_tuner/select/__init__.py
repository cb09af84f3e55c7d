"""Which rows stay: selections, one file each."""
