"""Files on disk: paths of a sweep, atomic writes, arrays, weights and JSON Lines logs."""
