"""The original's way to start a node: python server.py [--relay_url URL] [--relay_port N] [--use_mock_llm]."""

from tokenplace.cli.original import server

server()
