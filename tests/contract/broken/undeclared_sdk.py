"""An SDK that no distribution says it requires."""

REASON = "one process writes a run's file; choose shared-files"
