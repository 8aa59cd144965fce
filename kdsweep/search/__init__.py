"""The search: its space, samplers, stopping rules and the state of a sweep."""
