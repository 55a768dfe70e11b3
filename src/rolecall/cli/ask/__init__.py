"""Commands that ask the backends of a job."""
