/** OpenAI's chat, as far as the client itself looks into it; other fields pass through untouched. */

export type ContentPart =
  | { readonly type: 'text'; readonly text: string }
  | { readonly type: 'image_url'; readonly image_url: { readonly url: string; readonly detail?: string } }
  | { readonly type: string; readonly [field: string]: unknown }

export interface ChatMessage {
  readonly role: string
  readonly content?: string | readonly ContentPart[] | null
  readonly [field: string]: unknown
}

/** The body of /v1/chat/completions; fields that are not named here go to the node as they are. */
export interface ChatRequest {
  readonly model?: string
  readonly messages: readonly ChatMessage[]
  readonly stream?: boolean
  readonly temperature?: number
  readonly max_tokens?: number
  readonly [field: string]: unknown
}

export interface ChatUsage {
  readonly prompt_tokens: number
  readonly completion_tokens: number
  readonly total_tokens: number
}

/** One piece of a streamed answer. */
export interface ChatChunk {
  readonly id: string
  readonly object: 'chat.completion.chunk'
  readonly created: number
  readonly model: string
  readonly choices: readonly {
    readonly index: number
    readonly delta: { readonly role?: string; readonly content?: string | null; readonly [field: string]: unknown }
    readonly finish_reason: string | null
    readonly [field: string]: unknown
  }[]
  readonly usage?: ChatUsage | null
  readonly [field: string]: unknown
}

/** One whole answer. */
export interface ChatCompletion {
  readonly id: string
  readonly object: 'chat.completion'
  readonly created: number
  readonly model: string
  readonly choices: readonly {
    readonly index: number
    readonly message: { readonly role: string; readonly content: string | null; readonly [field: string]: unknown }
    readonly finish_reason: string | null
    readonly [field: string]: unknown
  }[]
  readonly usage?: ChatUsage
  readonly [field: string]: unknown
}
