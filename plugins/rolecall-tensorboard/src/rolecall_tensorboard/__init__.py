"""TensorBoard as a backend of rolecall: event files, written through tensorboardX."""
