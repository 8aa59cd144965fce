"""Trains one student, epoch by epoch and resumable. Knows nothing of Ray."""
