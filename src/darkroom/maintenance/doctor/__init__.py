"""`darkroom doctor`: what would fail in this project on this machine, and what fixes it."""
