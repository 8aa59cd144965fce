"""What was found? Data frames, importance, exported students."""
