"""Everything that touches Ray, and nothing else may."""
