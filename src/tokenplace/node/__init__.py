"""WHERE THE MODEL IS: opens requests, lets an engine answer, seals the answer."""
