"""The classic protocol at a node: requests of the original's clients are opened here and answered in their shapes.

`keys` makes, shows and replaces the key; `opening` reads a request and opens it; `answering` seals what is said;
`door` brings them together, for requests in the open and for those that come inside the sealed exchange; `work` is
what becomes of one in the open.
"""

from tokenplace.node.classic.door import ClassicDoor
from tokenplace.node.classic.keys import ClassicKeys
from tokenplace.node.classic.work import ClassicTask

__all__ = ["ClassicDoor", "ClassicKeys", "ClassicTask"]
