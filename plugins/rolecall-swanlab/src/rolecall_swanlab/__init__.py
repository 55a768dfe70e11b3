"""The backend `swanlab`."""
