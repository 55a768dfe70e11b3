"""One process that delivers for all roles, and how rows get to it without a shared disk."""
