"""What `rolecall show` draws on a terminal."""
