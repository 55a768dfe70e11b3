"""The page that `rolecall show --html` writes: one file, which opens without a network."""
