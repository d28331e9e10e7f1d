/**
 * One question and its answer: choose, seal, send, open; try again while nothing was seen, go on where it broke.
 *
 *     ask ──▶ choose a node ──▶ seal ──▶ submit ──▶ records ──▶ FINAL or ABORT
 *               ▲                         │  ▲  │
 *               │ nothing seen yet,       │  └──┘ the connection broke: resume at the next record,
 *               └─ at most twice ─────────┘       through any relay that has the node
 *
 * Once a record was opened the request is never sent again: two runs of a model are two different answers.
 */
import {
  ClockSkew,
  JobFailed,
  KeyUnknown,
  NoNode,
  Refused,
  RelayUnreachable,
  Stopped,
  TokenPlaceError,
  Truncated,
  UntrustedCard,
  WireError,
} from '../errors.ts'
import { type Head, parseAbort, parseFinal, parseHead, type Usage } from '../openai/calls.ts'
import { PendingAnswer, sealRequest } from '../sealing/exchange.ts'
import { chooseKey } from '../sealing/keys.ts'
import { type Bytes, concat, object, text } from '../wire/bytes.ts'
import { type JobId, type NodeId, parseNodeId } from '../wire/ids.ts'
import { RecordKind, type StreamRecord } from '../wire/stream.ts'
import { ELSEWHERE, isFull, Lost, lost, nextRecord, NOT_TWICE, type Try } from './attempt.ts'
import type { Records, Visit } from './door.ts'
import type { Relays } from './relays.ts'
import type { OnSighting } from './sightings.ts'
import type { Standing, Trust } from './trust.ts'

/** How often a request of which nothing was seen is sent to another node. */
const RETRIES = 2

/** Times in milliseconds: how long we try to come back to a broken stream, and wait for a lost node to return. */
const COME_BACK = 20_000
const NODE_RETURNS = 3000

/** A sign of life, for a person who waits. `position` is the place in the node's queue (1 is next), when known. */
export interface News {
  readonly phase: 'queued' | 'running' | 'returning' | 'retrying'
  readonly position: number | null
}

/**
 * All that is needed to come back to an answer later, also from another page: while it is being made, and for half a
 * minute after. It opens the answer, so keep it where you would keep the answer.
 */
export interface Bookmark {
  readonly relay: string
  readonly node: string
  readonly job: string
  readonly pending: string
}

export interface AskOptions {
  /** Stops the answer; the node is told. */
  signal?: AbortSignal | undefined
  onNews?: ((news: News) => void) | undefined
  /** Called before a sealed request is sent, and again if another one must be. */
  onBookmark?: ((bookmark: Bookmark) => void) | undefined
  /** Called with all that the relay sees of this call. */
  onSighting?: OnSighting | undefined
}

interface Opened {
  readonly kind: RecordKind
  readonly data: Bytes
}

/** Who may answer and how to get there. */
interface Way {
  readonly relays: Relays
  readonly trust: Trust
  /** Seconds a job outlives our connection, so that we can come back to it. */
  readonly linger: number
}

/** The answer to one call, as it comes. `head` is known from the start, `usage` at the end, also of one that broke off. */
export class Answer {
  readonly #way: Way
  readonly #options: AskOptions
  readonly #stop = new AbortController()
  readonly #signal: AbortSignal
  readonly #onAbort = (): void => void this.close()
  #records: AsyncGenerator<Opened, void, undefined> | null = null
  #now: Try | null = null
  #head: Head | null = null
  #usage: Usage | null = null
  #ended = false

  private constructor(way: Way, options: AskOptions) {
    this.#way = way
    this.#options = options
    this.#signal = this.#stop.signal
  }

  /** Ask; gives the answer once its head is here. */
  static ask(way: Way, call: Bytes, model: string | null, options: AskOptions): Promise<Answer> {
    const answer = new Answer(way, options)
    return answer.#begin(answer.#open(call, model))
  }

  /** Come back to an answer, from its beginning. */
  static comeBack(way: Way, bookmark: Bookmark, options: AskOptions): Promise<Answer> {
    const answer = new Answer(way, options)
    return answer.#begin(answer.#reopen(bookmark))
  }

  get head(): Head {
    if (!this.#head) throw new TypeError('The answer has not begun.')
    return this.#head
  }

  get usage(): Usage | null {
    return this.#usage
  }

  /** Who answers. */
  get node(): NodeId {
    return this.#try.node
  }

  /** How well we knew who answers when we asked. */
  get standing(): Standing {
    return this.#try.standing
  }

  /** Through whom. */
  get relay(): string {
    return this.#try.door.name
  }

  get job(): JobId {
    return this.#try.pending.job
  }

  get #try(): Try {
    if (!this.#now) throw new TypeError('Nobody was asked yet.')
    return this.#now
  }

  get #visit(): Visit {
    return { signal: this.#signal, onSighting: this.#options.onSighting }
  }

  /**
   * The body's bytes as they come.
   *
   * Throws JobFailed when the node is lost under the answer, ApiError when the node tells an error under the seal,
   * SealError when something was altered on the way. Only a loop that ends without an error saw the whole answer.
   * Leaving the loop early cancels the rest.
   */
  async *chunks(): AsyncGenerator<Bytes, void, undefined> {
    if (!this.#records) throw new TypeError('The answer has not begun.')
    try {
      for await (const { kind, data } of this.#records) {
        if (kind === RecordKind.DATA) yield data
        else if (kind === RecordKind.FINAL) this.#usage = parseFinal(data)
        else this.#abort(data)
      }
    } finally {
      await this.close()
    }
  }

  /** The whole body. */
  async bytes(): Promise<Bytes> {
    const parts: Bytes[] = []
    for await (const part of this.chunks()) parts.push(part)
    return concat(...parts)
  }

  /** The whole body as text. */
  async text(): Promise<string> {
    return text(await this.bytes())
  }

  /** Let go. What is not finished is cancelled at the node. */
  async close(): Promise<void> {
    this.#options.signal?.removeEventListener('abort', this.#onAbort)
    const attempt = this.#now
    const unfinished = attempt && !this.#ended
    this.#ended = true
    this.#stop.abort()
    if (unfinished) await this.#cancel(attempt)
  }

  /** Let go without a word to the node: the job lives on for its linger, and a bookmark can come back to it. */
  leave(): void {
    this.#ended = true
    void this.close()
  }

  async #begin(records: AsyncGenerator<Opened, void, undefined>): Promise<Answer> {
    this.#records = records
    const { signal } = this.#options
    if (signal?.aborted) throw new Stopped()
    signal?.addEventListener('abort', this.#onAbort)
    try {
      const first = await records.next()
      if (first.done) throw new Truncated()
      if (first.value.kind === RecordKind.ABORT) this.#abort(first.value.data)
      this.#head = parseHead(first.value.data)
      return this
    } catch (error) {
      await this.close()
      throw error
    }
  }

  #abort(data: Bytes): never {
    const { error, usage } = parseAbort(data)
    this.#usage = usage
    throw error
  }

  // -- the way ---------------------------------------------------------------------------------------------------------

  /** Opened records of one answer, from whichever try succeeds. */
  async *#open(call: Bytes, model: string | null): AsyncGenerator<Opened, void, undefined> {
    const avoid = new Map<NodeId, TokenPlaceError>()
    for (let left = RETRIES; ; left--) {
      const attempt = await this.#another(call, model, avoid)
      if (this.#signal.aborted) throw new Stopped()
      this.#now = attempt
      this.#options.onBookmark?.({
        relay: attempt.door.name,
        node: attempt.node,
        job: attempt.pending.job,
        pending: attempt.pending.save(),
      })
      try {
        yield* this.#follow(attempt)
        return
      } catch (error) {
        if (!(error instanceof Lost)) throw error
        if (nextRecord(attempt) || !error.again || left === 0) {
          this.#ended = true
          throw error.error
        }
        avoid.set(attempt.node, error.error)
        if (error.error.code === 'relay_stopped') this.#way.relays.forget(attempt.door)
        this.#way.relays.passOver(attempt.door, attempt.node)
        this.#tell('retrying')
      }
    }
  }

  async *#reopen(bookmark: Bookmark): AsyncGenerator<Opened, void, undefined> {
    const { relays, trust } = this.#way
    const node = parseNodeId(bookmark.node)
    const door = relays.named(bookmark.relay) ?? relays.inOrder()[0]
    if (!door) throw new RelayUnreachable('No relay is named.')
    const pending = PendingAnswer.restore(bookmark.pending)
    this.#now = {
      door,
      node,
      standing: trust.standing(node),
      card: null,
      model: null,
      pending,
      sealed: null,
      opener: null,
    }
    this.#tell('returning')
    try {
      yield* this.#follow(this.#now)
    } catch (error) {
      if (!(error instanceof Lost)) throw error
      this.#ended = true
      throw error.error
    }
  }

  /** As `#choose`. Where nobody is left, or only who has said already that he cannot, that is the error. */
  async #another(call: Bytes, model: string | null, avoid: ReadonlyMap<NodeId, TokenPlaceError>): Promise<Try> {
    const settled = [...avoid.values()].filter(({ code }) => NOT_TWICE.has(code))
    const last = settled[settled.length - 1]
    try {
      const attempt = await this.#choose(call, model, avoid)
      const said = avoid.get(attempt.node)
      if (!last || !said || !settled.includes(said)) return attempt
    } catch (error) {
      if (!last || !(error instanceof NoNode)) throw error
    }
    this.#ended = true
    throw last
  }

  /**
   * A relay, a node and a checked card; a node that failed already only when there is no other, and of those last the
   * ones that would only fail again.
   */
  async #choose(call: Bytes, model: string | null, avoid: ReadonlyMap<NodeId, TokenPlaceError>): Promise<Try> {
    const { relays, trust } = this.#way
    let distrust: UntrustedCard | ClockSkew | null = null
    const served = new Set<string>()
    const mayReturn = [...avoid.values()].some(({ code }) => !NOT_TWICE.has(code))
    const deadline = performance.now() + (mayReturn ? NODE_RETURNS : 0)
    for (;;) {
      let secondBest: Try | null = null
      let lastResort: Try | null = null
      const wanted = (node: NodeId): boolean => !avoid.has(node) && trust.admits(node)
      for (const [door, directory] of await relays.directories(model, this.#visit, wanted)) {
        for (const id of directory.models.keys()) served.add(id)
        for (const { card } of relays.inTurn(directory)) {
          const said = avoid.get(card.body.node)
          if (!said) relays.chosen(card.body.node) // before anything is awaited: others choose meanwhile
          try {
            const { body, standing } = await trust.check(card)
            const now = Date.now()
            const { sealed, pending } = await sealRequest(call, chooseKey(body.keys, now), now)
            const attempt: Try = { door, node: body.node, standing, card: body, model, pending, sealed, opener: null }
            if (!said) return attempt
            if (NOT_TWICE.has(said.code)) lastResort ??= attempt
            else secondBest ??= attempt
          } catch (error) {
            if (error instanceof UntrustedCard || error instanceof ClockSkew) distrust = error
            else if (error instanceof KeyUnknown) relays.forget(door)
            else throw error
          }
        }
      }
      secondBest ??= lastResort
      if (secondBest) return secondBest
      if (performance.now() >= deadline) break
      await this.#sleep(200) // the node we lost may be on its way back
    }
    throw distrust ?? new NoNode(trust.selective ? NOBODY_NAMED : nobody(model, served))
  }

  /** Records of one try, coming back as often as it takes. Throws Lost. */
  async *#follow(attempt: Try): AsyncGenerator<Opened, void, undefined> {
    const { relays } = this.#way
    let submitted = attempt.sealed === null
    let brokenAt: number | null = null
    let pause = 50
    for (;;) {
      const seen = nextRecord(attempt)
      let problem: TokenPlaceError
      let patience = COME_BACK
      let asked = 0
      try {
        const records = await this.#source(attempt, submitted)
        submitted = true
        for await (const record of records) {
          const opened = await this.#take(attempt, record)
          if (!opened) continue
          yield opened
          if (attempt.opener?.ended) return
        }
        problem = new Truncated('The relay ended the stream before the answer’s end.')
      } catch (error) {
        if (error instanceof RelayUnreachable || (error instanceof Refused && error.code === 'store_unavailable')) {
          relays.failed(attempt.door)
          problem = error
        } else if (
          error instanceof Lost &&
          nextRecord(attempt) &&
          relays.inOrder()[1] &&
          ELSEWHERE.has(error.error.code)
        ) {
          relays.failed(attempt.door)
          patience = COME_BACK / 4
          problem = error.error
        } else if (error instanceof Refused && !error.elsewhere) {
          if (error.retryAfter === null || !nextRecord(attempt)) throw new Lost(error, isFull(error))
          asked = error.retryAfter * 1000
          problem = error
        } else if (error instanceof Refused) {
          if (error.code === 'store_unavailable') {
            relays.failed(attempt.door) // its node may be back soon, through this replica or another
          } else {
            // A relay that is going away: its node is there, and another relay may have it.
            const whole = error.code === 'draining' ? COME_BACK : COME_BACK / 4
            patience = nextRecord(attempt) || attempt.sealed === null ? whole : 0
            if (error.code === 'draining') relays.failed(attempt.door)
            else relays.forget(attempt.door)
          }
          problem = error
        } else {
          throw error
        }
      }
      if (!submitted) throw new Lost(problem, true)
      const now = performance.now()
      if (brokenAt === null || nextRecord(attempt) > seen) {
        brokenAt = now
        pause = 50
      }
      if (now + asked - brokenAt >= patience) {
        // Who comes back to an old answer wants to know that it is gone, not that a node is.
        throw new Lost(
          problem instanceof Refused && !attempt.sealed ? problem : new JobFailed('node_lost', problem.message),
          true,
        )
      }
      this.#tell('returning')
      await this.#sleep(Math.max(pause, asked))
      pause = Math.min(1.5 * pause, 2000)
      attempt.door = relays.after(attempt.door)
    }
  }

  #source(attempt: Try, submitted: boolean): Promise<Records> {
    const { door, node, pending, sealed } = attempt
    if (sealed && !submitted) return door.submit(node, sealed, pending.job, this.#way.linger, this.#visit)
    return door.resume(node, pending.job, nextRecord(attempt), this.#way.linger, this.#visit)
  }

  /** Open one record. Throws Lost when the relay says that nothing more will come, SealError when it lies. */
  async #take(attempt: Try, record: StreamRecord): Promise<Opened | null> {
    switch (record.kind) {
      case RecordKind.NOTICE:
        this.#hear(record.payload)
        return null
      case RecordKind.OUTCOME:
        throw lost(record.payload)
      case RecordKind.NONCE:
        if (!nextRecord(attempt)) attempt.opener = await attempt.pending.accept(record.payload)
        return null
    }
    if (!attempt.opener) throw new WireError('The answer begins without its nonce.')
    const data = await attempt.opener.open(record)
    if (attempt.opener.nextNumber === 1 && attempt.card) {
      this.#way.trust.met(attempt.card)
      this.#way.relays.answered(attempt.model, attempt.node)
    }
    if (attempt.opener.ended) this.#ended = true
    return { kind: record.kind, data }
  }

  #hear(payload: Bytes): void {
    try {
      const { state, position } = object(payload)
      this.#tell(state === 'queued' ? 'queued' : 'running', typeof position === 'number' ? position : null)
    } catch {
      // the relay's chatter is advice; what cannot be read is no advice
    }
  }

  #tell(phase: News['phase'], position: number | null = null): void {
    this.#options.onNews?.({ phase, position })
  }

  #sleep(ms: number): Promise<void> {
    return new Promise((resolve, reject) => {
      const woken = (): void => {
        clearTimeout(timer)
        reject(new Stopped())
      }
      if (this.#signal.aborted) return woken()
      const timer = setTimeout(() => {
        this.#signal.removeEventListener('abort', woken)
        resolve()
      }, ms)
      this.#signal.addEventListener('abort', woken, { once: true })
    })
  }

  /** Tell the relay that nobody wants the rest; if it cannot be told, the linger runs out instead. */
  async #cancel(attempt: Try): Promise<void> {
    for (const wait of [0, 250]) {
      // The word may overtake the request itself, so a job that nobody knows yet is asked for once more.
      if (wait) await new Promise((resolve) => setTimeout(resolve, wait))
      try {
        await attempt.door.cancel(attempt.node, attempt.pending.job, { onSighting: this.#options.onSighting })
        return
      } catch (error) {
        if (!(error instanceof TokenPlaceError)) throw error
        if (!(error instanceof Refused) || nextRecord(attempt)) return
      }
    }
  }
}

const NOBODY_NAMED = 'None of the nodes you pinned or that are vouched for is connected to the relay right now.'

function nobody(model: string | null, served: ReadonlySet<string>): string {
  if (!served.size) return 'No node is connected to the relay right now; try again in a moment.'
  return `No node serves ${model ?? 'anything'} right now. Served now: ${[...served].sort().slice(0, 20).join(', ')}.`
}
