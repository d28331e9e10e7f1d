/** What the relay saw, gathered from the client's sightings while they happen. */
import { RecordKind, type Sighting } from '@tokenplace/client'
import type { Seen, SeenStep } from './types.ts'

export const NOTHING_SEEN: Seen = { relay: null, steps: [], records: [] }

/** Records beyond this many are added to the last one: the picture stays true, the memory bounded. */
const MOST_RECORDS = 2000

export class Witness {
  #relay: string | null
  readonly #steps: SeenStep[]
  readonly #records: (readonly [number, number])[]

  constructor(before: Seen = NOTHING_SEEN) {
    this.#relay = before.relay
    this.#steps = [...before.steps]
    this.#records = [...before.records]
  }

  readonly note = (sighting: Sighting): void => {
    const { at, relay, what, model, node, job } = sighting
    this.#relay = relay
    if (what !== 'record') {
      this.#steps.push({
        at,
        what,
        bytes: sighting.sent + sighting.received,
        ...(model ? { model } : {}),
        ...(node ? { node } : {}),
        ...(job ? { job } : {}),
      })
      return
    }
    // The relay's own signs of life are its words, not something that it learns.
    if (sighting.kind === RecordKind.NOTICE || sighting.kind === RecordKind.OUTCOME) return
    const began = this.#steps[0]?.at ?? at
    const last = this.#records.at(-1)
    if (last && this.#records.length >= MOST_RECORDS)
      this.#records.splice(-1, 1, [at - began, last[1] + sighting.received])
    else this.#records.push([at - began, sighting.received])
  }

  get seen(): Seen {
    return { relay: this.#relay, steps: [...this.#steps], records: [...this.#records] }
  }
}

/** The sums of one answer, for the panel. */
export interface SeenSums {
  readonly asked: number
  readonly sent: number
  readonly received: number
  readonly pieces: number
  readonly lastedMs: number
}

export function sumsOf({ steps, records }: Seen): SeenSums {
  const submits = steps.filter(({ what }) => what === 'submit')
  return {
    asked: steps[0]?.at ?? 0,
    sent: submits.reduce((sum, { bytes }) => sum + bytes, 0),
    received: records.reduce((sum, [, bytes]) => sum + bytes, 0),
    pieces: records.length,
    lastedMs: records.at(-1)?.[0] ?? 0,
  }
}
