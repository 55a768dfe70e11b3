"""Backends with one fault each, and the test of the contract that must find it."""
