"""KEYS: the only room that opens the cryptography library. Pure: bytes in, bytes out."""
