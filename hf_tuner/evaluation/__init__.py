"""Measuring, predicting, comparing, and proving that what is saved is what was measured."""
