"""The notice board: who offers machines, how people rate models, who would like to help. No word of a chat is here."""
