"""What does the sweep file say? YAML with line numbers, the spec as types, and every fault in one line."""
