"""What `rolecall verify` does: compare what backends hold with the journals, and put back what they lack."""
