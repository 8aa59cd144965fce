"""What does a person see? Progress, tables, the summary."""
