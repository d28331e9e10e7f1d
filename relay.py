"""The original's way to start a relay: python relay.py [--port N] [--host H] [--use_mock_llm]."""

from tokenplace.cli.original import relay

relay()
