"""Where is it kept, and is it whole? Paths of a sweep, atomic writes, arrays, weights, logs of JSON lines."""
