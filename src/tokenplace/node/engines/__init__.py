"""The model runtimes a node can drive."""
