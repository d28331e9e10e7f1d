"""The commands; the only room that puts the others together and starts them."""
