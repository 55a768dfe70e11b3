"""Other libraries' own names, for code that was written for them. `import rolecall` imports none of it."""
