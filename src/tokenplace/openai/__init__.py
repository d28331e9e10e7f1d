"""WORDS: the shapes of OpenAI requests and answers, and the catalogue of models. Pure."""
