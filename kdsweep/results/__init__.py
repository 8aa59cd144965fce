"""The results of a sweep: data frames, importance and exported students."""
