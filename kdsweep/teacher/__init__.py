"""The teacher: loaded or trained once, with its outputs computed once."""
