"""The processes in which a test runs a backend and reads back what it holds."""
