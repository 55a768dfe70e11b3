"""What a backend's author tests with."""

from rolecall.testing.contract import BackendContract, FinishedJob, Points

__all__ = ["BackendContract", "FinishedJob", "Points"]
