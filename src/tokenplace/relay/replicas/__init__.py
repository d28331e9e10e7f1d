"""Several relays as one: who is connected where, and streams between a client here and a node there."""
