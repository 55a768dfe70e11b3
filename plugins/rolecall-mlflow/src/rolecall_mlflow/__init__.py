"""rolecall's backend for MLflow: one run that every role of a job writes."""
