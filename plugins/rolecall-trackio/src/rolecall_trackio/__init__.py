"""The backend `trackio`."""
