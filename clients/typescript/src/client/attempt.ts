/** One try of a question at one node, and how it can be lost. */
import { JobFailed, type TokenPlaceError } from '../errors.ts'
import type { PendingAnswer, RecordOpener } from '../sealing/exchange.ts'
import { type Bytes, object } from '../wire/bytes.ts'
import type { CardBody } from '../wire/card.ts'
import type { NodeId } from '../wire/ids.ts'
import type { Door } from './door.ts'
import type { Standing } from './trust.ts'

/** Endings after which another node, or the same with a fresh card, may do better: the wrong clock may be the node's. */
export const FOR_ANOTHER_NODE: ReadonlySet<string> = new Set([
  'node_lost',
  'no_progress',
  'relay_stopped',
  'queue_timeout',
  'engine_failed',
  'engine_full',
  'node_draining',
  'busy',
  'key_unknown',
  'clock_skew',
])

/** Endings that the same node would only repeat: they are told as they are where nobody else is left to ask. */
export const NOT_TWICE: ReadonlySet<string> = new Set(['queue_full', 'queue_timeout', 'engine_failed', 'engine_full'])

/** Endings at one relay that need not be the end: the node may hold the answer for us at another. */
export const ELSEWHERE: ReadonlySet<string> = new Set(['relay_stopped', 'node_lost'])

/** One sealed request on its way; `sealed` is null for one that was sent before. */
export interface Try {
  door: Door
  readonly node: NodeId
  readonly standing: Standing
  readonly card: CardBody | null
  readonly model: string | null
  readonly pending: PendingAnswer
  readonly sealed: Bytes | null
  opener: RecordOpener | null
}

/** This try is over without an answer; `again` says whether another may do better. */
export class Lost extends Error {
  readonly error: TokenPlaceError
  readonly again: boolean

  constructor(error: TokenPlaceError, again: boolean) {
    super(error.message)
    this.error = error
    this.again = again
  }
}

export const nextRecord = (attempt: Try): number => attempt.opener?.nextNumber ?? 0

export const isFull = (error: TokenPlaceError): boolean => error.code === 'queue_full'

/** What the relay's reason for an end means. */
export function lost(payload: Bytes): Lost {
  let code = 'node_lost'
  let message = ''
  try {
    const fields = object(payload)
    if (typeof fields['code'] === 'string' && /^\w{1,40}$/.test(fields['code'])) code = fields['code']
    if (typeof fields['message'] === 'string') message = fields['message'].slice(0, 400)
  } catch {
    // an unreadable reason is no reason
  }
  return new Lost(new JobFailed(code, message), FOR_ANOTHER_NODE.has(code))
}
