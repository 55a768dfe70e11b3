"""What a job holds: launcher, roles, and what became of them."""
