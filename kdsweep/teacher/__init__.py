"""What does the teacher say? It is built or trained once, and its outputs are computed once."""
