"""What a run holds as files: tables, and images and other media."""
