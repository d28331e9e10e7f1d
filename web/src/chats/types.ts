/** What the page remembers. Everything here stays in this browser. */
import type { Bookmark, ChatUsage, JobId, NodeId, Standing } from '@tokenplace/client'

export interface Chat {
  readonly id: string
  title: string
  /** Unix ms of the last change; the list is in this order. */
  at: number
  model: string | null
  /** The system prompt; empty for none. */
  system: string
  /** Null leaves it to the node. */
  temperature: number | null
}

/** A picture as a data: URL. */
export interface Picture {
  readonly name: string
  readonly url: string
}

export interface Question {
  readonly role: 'user'
  readonly id: string
  readonly chat: string
  readonly at: number
  readonly text: string
  readonly pictures: readonly Picture[]
}

export type AnswerState = 'coming' | 'whole' | 'stopped' | 'broken'

export interface Reply {
  readonly role: 'assistant'
  readonly id: string
  readonly chat: string
  readonly at: number
  readonly text: string
  readonly state: AnswerState
  readonly model: string | null
  readonly trouble: Trouble | null
  readonly node: NodeId | null
  readonly standing: Standing | null
  readonly usage: ChatUsage | null
  /** Whether the model ended because it had no more room. */
  readonly cut: boolean
  /** Milliseconds from asking to the first word, and to the end. */
  readonly firstMs: number | null
  readonly wholeMs: number | null
  /** With this the answer can be gone on with; it opens the answer and nothing else. */
  readonly bookmark: Bookmark | null
  readonly seen: Seen
}

export type Message = Question | Reply

/** What went wrong, for a person: what happened, and what to do. */
export interface Trouble {
  readonly code: string
  readonly title: string
  readonly advice: string
}

/** What the relay saw of one answer, from the traffic itself. Times are unix ms, sizes are bytes as they travelled. */
export interface Seen {
  readonly relay: string | null
  readonly steps: readonly SeenStep[]
  /** The answer's records as [ms after the first step, bytes]. */
  readonly records: readonly (readonly [number, number])[]
}

export interface SeenStep {
  readonly at: number
  readonly what: 'directory' | 'submit' | 'resume' | 'cancel'
  readonly bytes: number
  readonly model?: string
  readonly node?: NodeId
  readonly job?: JobId
}
