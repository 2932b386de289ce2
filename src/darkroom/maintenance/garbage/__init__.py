"""`darkroom gc`: what takes room and is referred to by nothing: no commit that has a name, no registered version."""
