"""The OpenAI API over HTTP for programs that know nothing of sealing."""
