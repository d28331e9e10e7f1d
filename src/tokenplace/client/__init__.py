"""WHERE THE PERSON IS: chooses a node, checks its card, seals, opens, resumes."""
