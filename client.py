"""The original's way to chat: python client.py [--relay_port N]."""

from tokenplace.cli.original import client

client()
