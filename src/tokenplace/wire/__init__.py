"""IN THE OPEN: the bytes everybody may see. Pure: messages, frames, routes, limits."""
