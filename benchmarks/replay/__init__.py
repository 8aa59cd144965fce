"""Replays searches on recorded learning curves: no student is trained, and hours of search take seconds."""
