"""What a job prints on standard error: a line at launch, a line at the end, and bars while somebody waits."""
