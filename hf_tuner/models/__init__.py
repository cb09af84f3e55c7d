"""Loading, targets and heads, pooling, saving, merging."""
