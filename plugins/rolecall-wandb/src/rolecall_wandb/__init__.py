"""rolecall's backend for Weights & Biases: one run that every role of a job writes."""
