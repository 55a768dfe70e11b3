"""A job of one process, which needs no config."""
