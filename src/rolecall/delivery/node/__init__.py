"""What runs once on each node of a job: the agent, and what it measures."""
