"""Terminal output: progress, tables and the summary."""
