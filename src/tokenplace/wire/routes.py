"""Where the relay listens, and what the parameters are called."""

from __future__ import annotations

NODES = "/relay/v2/nodes"
"""GET `?model=ID&limit=N&node=ID&prefer=ID`: who is connected, best choice first, as signed cards with their load."""

JOBS = "/relay/v2/jobs"
"""POST `?node=ID&linger=SECONDS` a sealed request, get the stream of records.
GET `/{job}?node=ID&next=N` goes on with a stream at record N. DELETE `/{job}?node=ID` cancels."""

LINK = "/relay/v2/link"
"""WebSocket: nodes dial in here. Where none passes: POST opens a link, then GET, POST and DELETE `/{token}` poll it."""

NODE_PARAM = "node"
LINGER_PARAM = "linger"
NEXT_PARAM = "next"
MODEL_PARAM = "model"
LIMIT_PARAM = "limit"
PREFER_PARAM = "prefer"
"""A node the client would like again: first in the list while it has a free slot."""

LIVEZ = "/livez"
HEALTHZ = "/healthz"
METRICS = "/metrics"
SERVER_NODES = "/api/v1/relay/server-nodes"
DIAGNOSTICS = "/api/v1/relay/diagnostics"
"""GET, with the operator's token: how the relay and its nodes are, without content and without addresses."""
