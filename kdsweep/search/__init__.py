"""What is tried next, and what is stopped? The search space, the samplers, the rungs, the memory of a sweep."""
