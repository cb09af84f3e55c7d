"""Fit: encode, prove, train, save, prove again."""
