"""The records of an event file."""
