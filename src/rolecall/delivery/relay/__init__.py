"""One process that delivers the rows of all roles: see `shared_run: relay`."""
