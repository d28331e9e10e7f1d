/**
 * Names that are answered by whoever serves another model: aliases, and adapters without weights of their own.
 * Written by `scripts/names.py` from `src/tokenplace/openai/catalogue.toml`.
 */
const SERVED_AS: Readonly<Record<string, string>> = {
  'gpt-3.5-turbo': 'llama-3-8b-instruct',
  'gpt-5-chat-latest': 'llama-3-8b-instruct',
  'llama-3-8b-instruct:alignment': 'llama-3-8b-instruct',
}

/** What a node's card must list for the node to answer to this name. */
export const servedAs = (name: string): string => (Object.hasOwn(SERVED_AS, name) && SERVED_AS[name]) || name
