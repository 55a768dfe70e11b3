"""What a user writes, and what will happen."""
