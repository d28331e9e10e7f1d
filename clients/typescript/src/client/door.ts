/** A client's way into one relay: the directory, the stream of records, going on, cancelling. */
import { Refused, RelayUnreachable, Stopped, TokenPlaceError, WireError } from '../errors.ts'
import { type Bytes, isObject, object } from '../wire/bytes.ts'
import { type Card, parseCard } from '../wire/card.ts'
import type { JobId, NodeId } from '../wire/ids.ts'
import { MAX_DIRECTORY } from '../wire/limits.ts'
import { REQUEST_TYPE } from '../wire/request.ts'
import { recordSize, RecordSplitter, STREAM_TYPE, type StreamRecord } from '../wire/stream.ts'
import type { OnSighting } from './sightings.ts'

const NODES = '/relay/v2/nodes'
const JOBS = '/relay/v2/jobs'

/** A relay gives a sign of life every ten seconds; two and a half missed mean that it is gone (ms). */
const SILENCE = 25_000

/** One node as the relay's directory shows it; the card is not believed yet. */
export interface Listing {
  readonly card: Card
  readonly slots: number
  readonly free: number
  readonly queued: number
}

/** Who is there: a few nodes, the best choice first, and every model with how many serve it. */
export interface Directory {
  readonly listings: readonly Listing[]
  readonly models: ReadonlyMap<string, number>
  /** Whether the relay is going away. */
  readonly draining: boolean
}

/** One node that is looked for, or one that is liked: that comes first while it has a free slot. */
export interface Wish {
  readonly node?: NodeId | undefined
  readonly prefer?: NodeId | undefined
}

/** What every exchange with a relay takes: when to let go, and who notes what the relay saw. */
export interface Visit {
  readonly signal?: AbortSignal | undefined
  readonly onSighting?: OnSighting | undefined
}

export type Records = AsyncGenerator<StreamRecord, void, undefined>
export type Fetch = (url: string, init: RequestInit) => Promise<Response>

/** A relay at a base URL. */
export class Door {
  readonly name: string
  readonly #fetch: Fetch

  constructor(url: string, fetch: Fetch = (input, init) => globalThis.fetch(input, init)) {
    const parsed = URL.canParse(url)
      ? new URL(url)
      : URL.canParse(`https://${url}`)
        ? new URL(`https://${url}`)
        : null
    if (!parsed || !/^https?:$/.test(parsed.protocol)) {
      throw new WireError(`A relay’s address looks like https://relay.example; ${url} does not.`)
    }
    this.name = `${parsed.origin}${parsed.pathname}`.replace(/\/+$/, '')
    this.#fetch = fetch
  }

  /** Ask who is there; entries that are not readable are passed over. Throws RelayUnreachable, Refused. */
  async nodes(
    model: string | null,
    limit: number,
    { signal, onSighting }: Visit = {},
    { node, prefer }: Wish = {},
  ): Promise<Directory> {
    const query = new URLSearchParams({
      limit: String(limit),
      ...(model === null ? {} : { model }),
      ...(node && { node }),
      ...(prefer && { prefer }),
    })
    const at = Date.now()
    const within = AbortSignal.timeout(SILENCE)
    const response = await this.#ask(
      'GET',
      `${NODES}?${query}`,
      {},
      signal ? AbortSignal.any([signal, within]) : within,
    )
    const content = await this.#translate(response.text(), signal)
    const looked = { model, ...(node && { node }) }
    onSighting?.({ at, relay: this.name, what: 'directory', ...looked, sent: 0, received: content.length })
    if (content.length > MAX_DIRECTORY) throw new RelayUnreachable(`${this.name} sends an endless directory.`)
    return this.#directory(content)
  }

  /** Hand over a sealed request. Throws RelayUnreachable or Refused, also while records are read. */
  async submit(node: NodeId, sealed: Bytes, job: JobId, linger: number, visit: Visit): Promise<Records> {
    const path = `${JOBS}?${new URLSearchParams({ node, linger: String(linger) })}`
    visit.onSighting?.({
      at: Date.now(),
      relay: this.name,
      what: 'submit',
      node,
      job,
      sent: sealed.length,
      received: 0,
    })
    return this.#stream('POST', path, { body: sealed, headers: { 'content-type': REQUEST_TYPE } }, node, job, visit)
  }

  /** Go on with a job at a record. Throws RelayUnreachable or Refused, also while records are read. */
  async resume(node: NodeId, job: JobId, next: number, linger: number, visit: Visit): Promise<Records> {
    const path = `${JOBS}/${job}?${new URLSearchParams({ node, next: String(next), linger: String(linger) })}`
    visit.onSighting?.({ at: Date.now(), relay: this.name, what: 'resume', node, job, sent: 0, received: 0 })
    return this.#stream('GET', path, {}, node, job, visit)
  }

  /** Stop a job. Throws RelayUnreachable or Refused. */
  async cancel(node: NodeId, job: JobId, { onSighting }: Visit = {}): Promise<void> {
    onSighting?.({ at: Date.now(), relay: this.name, what: 'cancel', node, job, sent: 0, received: 0 })
    const path = `${JOBS}/${job}?${new URLSearchParams({ node })}`
    // keepalive: the page that stops an answer may be closing
    const response = await this.#ask('DELETE', path, { keepalive: true }, AbortSignal.timeout(2000))
    await this.#translate(response.arrayBuffer())
  }

  async #stream(
    method: string,
    path: string,
    init: RequestInit,
    node: NodeId,
    job: JobId,
    { signal, onSighting }: Visit,
  ): Promise<Records> {
    const leaving = new AbortController()
    const leave = signal ? AbortSignal.any([signal, leaving.signal]) : leaving.signal
    const response = await this.#within(this.#ask(method, path, init, leave), leaving, signal)
    // A web page that says 200 to everything (a captive portal, a parked domain) is no answer.
    if (response.headers.get('content-type') !== STREAM_TYPE) {
      leaving.abort()
      throw this.#noRelay()
    }
    return this.#records(response, leaving, node, job, signal, onSighting)
  }

  async *#records(
    response: Response,
    leaving: AbortController,
    node: NodeId,
    job: JobId,
    signal: AbortSignal | undefined,
    onSighting: OnSighting | undefined,
  ): Records {
    const reader = response.body?.getReader()
    if (!reader) throw new RelayUnreachable(`The relay ${this.name} sent no stream.`)
    const splitter = new RecordSplitter()
    try {
      for (;;) {
        const { done, value } = await this.#within(reader.read(), leaving, signal)
        if (done) break
        for (const record of splitter.feed(value)) {
          const received = recordSize(record)
          const { kind } = record
          onSighting?.({ at: Date.now(), relay: this.name, what: 'record', kind, node, job, sent: 0, received })
          yield record
        }
      }
      splitter.finish()
    } finally {
      leaving.abort()
    }
  }

  /** Wait for the next sign of life; silence means that the relay is gone. */
  async #within<Value>(waiting: Promise<Value>, leaving: AbortController, signal?: AbortSignal): Promise<Value> {
    let timer: ReturnType<typeof setTimeout> | undefined
    const silence = new Promise<never>((_, reject) => {
      timer = setTimeout(() => {
        reject(new RelayUnreachable(`The relay ${this.name} has said nothing for ${SILENCE / 1000} seconds.`))
        leaving.abort()
      }, SILENCE)
    })
    try {
      return await Promise.race([this.#translate(waiting, signal), silence])
    } finally {
      clearTimeout(timer)
    }
  }

  /** One exchange up to the head of its answer. */
  async #ask(method: string, path: string, init: RequestInit, signal: AbortSignal): Promise<Response> {
    const response = await this.#translate(this.#fetch(this.name + path, { ...init, method, signal }), signal)
    if (!response.ok) throw await this.#refusal(response)
    return response
  }

  /** Other people's errors become ours here. */
  async #translate<Value>(waiting: Promise<Value>, signal?: AbortSignal): Promise<Value> {
    try {
      return await waiting
    } catch (error) {
      if (error instanceof TokenPlaceError) throw error
      if (signal?.aborted && !(signal.reason instanceof Error && signal.reason.name === 'TimeoutError')) {
        throw new Stopped()
      }
      throw new RelayUnreachable(`The relay ${this.name} cannot be reached, or the connection to it broke.`)
    }
  }

  async #refusal(response: Response): Promise<Refused> {
    const header = response.headers.get('retry-after') ?? ''
    const retryAfter = /^\d+$/.test(header) ? Number(header) : null
    try {
      const { error } = object(await response.text())
      if (isObject(error) && typeof error['code'] === 'string' && typeof error['message'] === 'string') {
        return new Refused(error['message'], error['code'], response.status, retryAfter)
      }
    } catch {
      // falls through: a proxy's page, or no body at all
    }
    if (response.status >= 500) {
      return new Refused(
        `The relay ${this.name} is in trouble (${response.status}).`,
        'draining',
        response.status,
        retryAfter,
      )
    }
    return new Refused(`The relay answered ${response.status}.`, 'relay_error', response.status, retryAfter)
  }

  #noRelay(): RelayUnreachable {
    return new RelayUnreachable(`What answers at ${this.name} is no token.place relay.`)
  }

  async #directory(content: string): Promise<Directory> {
    let fields: Record<string, unknown>
    try {
      fields = object(content)
    } catch {
      fields = {}
    }
    const { nodes, models } = fields
    if (!Array.isArray(nodes) || !isObject(models)) {
      throw this.#noRelay()
    }
    const listings = await Promise.all(nodes.map((entry: unknown) => readListing(entry)))
    const counts = Object.entries(models).filter((entry): entry is [string, number] => typeof entry[1] === 'number')
    return {
      listings: listings.filter((listing) => listing !== null),
      models: new Map(counts),
      draining: fields['draining'] === true,
    }
  }
}

async function readListing(entry: unknown): Promise<Listing | null> {
  if (!isObject(entry) || typeof entry['card'] !== 'string') return null
  const count = (value: unknown): number => (typeof value === 'number' ? value : 0)
  try {
    const card = await parseCard(entry['card'])
    return { card, slots: count(entry['slots']), free: count(entry['free']), queued: count(entry['queued']) }
  } catch (error) {
    if (error instanceof WireError) return null
    throw error
  }
}
