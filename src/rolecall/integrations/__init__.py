"""rolecall as the logger of other frameworks; none of them is imported before its own module is."""
