"""The node's API: an opened request in, an exact OpenAI answer out. See `api`."""

from tokenplace.node.api.answers import Answer
from tokenplace.node.api.api import NodeApi

__all__ = ["Answer", "NodeApi"]
