"""What a backend is, and how it is found."""
