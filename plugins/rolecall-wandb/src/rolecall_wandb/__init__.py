"""Weights & Biases backend for rolecall: one run that all roles of a job write to."""
