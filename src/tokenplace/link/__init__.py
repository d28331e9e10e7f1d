"""The node link: a state machine without clock or socket, and its WebSocket shells."""
