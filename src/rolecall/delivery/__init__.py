"""From the journal to a backend."""
