"""Worker processes: their settings, and the data and teacher outputs that they keep between trials."""
