/** What a relay sees of its clients, noted where it happens, so that people can be shown the truth and not a promise. */
import type { JobId, NodeId } from '../wire/ids.ts'
import type { RecordKind } from '../wire/stream.ts'

/**
 * One thing the relay saw. `at` is unix milliseconds; `sent` and `received` are bytes of bodies as they travelled.
 *
 * `directory`: we asked who serves `model`. `submit`: a sealed request for `node`, named `job`. `resume`: we came back
 * for a job. `cancel`: we stopped one. `record`: a record of the answer passed through, of kind `kind`.
 */
export interface Sighting {
  readonly at: number
  readonly relay: string
  readonly what: 'directory' | 'submit' | 'resume' | 'cancel' | 'record'
  readonly sent: number
  readonly received: number
  readonly model?: string | null
  readonly node?: NodeId
  readonly job?: JobId
  readonly kind?: RecordKind
}

export type OnSighting = (sighting: Sighting) => void
