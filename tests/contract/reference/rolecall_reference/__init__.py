"""Correct backends, one of each kind, small enough to read before you write your own."""
