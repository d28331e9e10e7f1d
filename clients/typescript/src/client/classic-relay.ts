/**
 * A relay's classic routes, and a gateway's: questions handed over, answers waited for.
 *
 * Where the relay is one of ours it names questions, hands out tokens and lets a caller wait; where it is the original,
 * answers are polled for, as it was made for. Times are milliseconds.
 */
import { Refused, RelayUnreachable, Stopped, TokenPlaceError, WireError } from '../errors.ts'
import { isObject, object } from '../wire/bytes.ts'
import type { Fetch } from './door.ts'

/** How long to wait for an answer in one request: below what proxies give up at. */
const WAIT = 25_000
const MARGIN = 10_000

/** How an original relay is polled: when first, how often, how many times. */
const FIRST_LOOK = 3000
const LOOK_AGAIN = 2000
const LOOKS = 5

const MAX_ANSWER = 16 * 1024 * 1024
const NOTHING_YET = 'No response available'

type Fields = Record<string, unknown>

/** A question that a relay has taken. An original relay names nothing. */
export interface Asked {
  readonly fields: Fields
  readonly named: boolean
}

/** What was answered: `told` is null where it is no JSON object. */
interface Told {
  readonly status: number
  readonly told: Fields | null
}

/** One relay (or gateway) at a base URL. */
export class ClassicRelay {
  readonly name: string
  readonly #fetch: Fetch

  constructor(url: string, fetch: Fetch = (input, init) => globalThis.fetch(input, init)) {
    if (!/^https?:\/\/[^/]/.test(url) || !URL.canParse(url)) {
      throw new WireError(`The base URL begins with http:// or https://; ${url} does not.`)
    }
    this.name = url.replace(/\/+$/, '')
    this.#fetch = fetch
  }

  /** The JSON object at a path. Throws RelayUnreachable, Refused, Stopped. */
  async get(path: string, signal?: AbortSignal): Promise<Fields> {
    const { status, told } = await this.#call('GET', path, null, MARGIN, signal)
    if (status !== 200 || !told || 'error' in told) throw refusal(status, told)
    return told
  }

  /** What a path answers, also where that is an error. Throws RelayUnreachable, Stopped. */
  post(path: string, content: Fields, within: number, signal?: AbortSignal): Promise<Told> {
    return this.#call('POST', path, content, within, signal)
  }

  /** An answer that is read as it comes; `silence` is the longest. Throws RelayUnreachable, Stopped. */
  async stream(path: string, content: Fields, silence: number, signal?: AbortSignal): Promise<ClassicResponse> {
    const leaving = new AbortController()
    const leave = signal ? AbortSignal.any([signal, leaving.signal]) : leaving.signal
    const asked = this.#send('POST', path, content, leave)
    const response = await within(this.#translated(asked, signal), silence, leaving, this.#gone)
    return new ClassicResponse(response, silence, leaving, (waiting) => this.#translated(waiting, signal), this.#gone)
  }

  // -- questions ---------------------------------------------------------------------------------------------------------

  /** Hand over a question. Throws RelayUnreachable, Stopped, or Refused with the relay's reason and status. */
  async ask(fields: Fields & { client_public_key: string }, stream: boolean, signal?: AbortSignal): Promise<Asked> {
    const question = { ...fields, bound: true, ...(stream && { stream }) }
    const { status, told } = await this.post('/faucet', question, WAIT, signal)
    if (status !== 200 || !(told?.['message'] || told?.['success'])) throw refusal(status, told)
    const { request_id: id, retrieve_token: token } = told
    const named = typeof id === 'string' && id !== ''
    return {
      named,
      fields: {
        client_public_key: fields.client_public_key,
        ...(named && { request_id: id }),
        ...(typeof token === 'string' && { retrieve_token: token }),
      },
    }
  }

  /** The answer, waited for as long as `patience`. Throws RelayUnreachable, Stopped, or Refused where none will come. */
  async retrieve(asked: Asked, patience: number, signal?: AbortSignal): Promise<Fields> {
    if (!asked.named) await pause(FIRST_LOOK, signal)
    return this.#askAgain('/retrieve', asked, patience, signal)
  }

  /** What /stream/retrieve tells, as long as there is more. Throws as `retrieve`. */
  async *pieces(asked: Asked, patience: number, signal?: AbortSignal): AsyncGenerator<Fields, void, undefined> {
    for (;;) {
      const told = await this.#askAgain('/stream/retrieve', asked, patience, signal)
      yield told
      if (told['final']) return
    }
  }

  /** Nobody wants the answer any more; if the relay cannot be told, it forgets by itself. */
  async cancel({ named, fields }: Asked): Promise<void> {
    if (!named) return
    await this.post('/retrieve', { ...fields, cancel: true }, MARGIN).catch(() => {})
  }

  async #askAgain(path: string, { named, fields }: Asked, patience: number, signal?: AbortSignal): Promise<Fields> {
    const until = performance.now() + patience
    for (let looks = 0; named ? performance.now() < until : looks < LOOKS; looks++) {
      if (looks && !named) await pause(LOOK_AGAIN, signal)
      const wait = Math.min(WAIT, until - performance.now()) / 1000
      const { status, told } = await this.post(path, { ...fields, ...(named && { wait }) }, WAIT + MARGIN, signal)
      if (status !== 200 || !told) throw refusal(status, told)
      if (!('error' in told)) return told
      if (!String(told['error']).startsWith(NOTHING_YET)) throw refusal(status, told)
    }
    throw new Refused('No answer came in time; ask again, or wait longer.', 'no_progress')
  }

  // -- exchanges ---------------------------------------------------------------------------------------------------------

  async #call(
    method: string,
    path: string,
    content: Fields | null,
    within: number,
    signal?: AbortSignal,
  ): Promise<Told> {
    const limit = AbortSignal.timeout(within)
    const leave = signal ? AbortSignal.any([signal, limit]) : limit
    const response = await this.#translated(this.#send(method, path, content, leave), signal)
    return { status: response.status, told: jsonOf(await this.#translated(bounded(response), signal)) }
  }

  #send(method: string, path: string, content: Fields | null, signal: AbortSignal): Promise<Response> {
    const body = content ? { body: JSON.stringify(content), headers: { 'content-type': 'application/json' } } : {}
    return this.#fetch(this.name + path, { method, signal, ...body })
  }

  /** Other people's errors become ours here. */
  async #translated<Value>(waiting: Promise<Value>, signal?: AbortSignal): Promise<Value> {
    try {
      return await waiting
    } catch (error) {
      if (error instanceof TokenPlaceError) throw error
      throw signal?.aborted ? new Stopped() : this.#gone()
    }
  }

  readonly #gone = (): RelayUnreachable =>
    new RelayUnreachable(`${this.name} cannot be reached; check the address and the network.`)
}

/** An answer whose body comes in pieces. */
export class ClassicResponse {
  readonly status: number
  readonly contentType: string
  readonly #response: Response
  readonly #silence: number
  readonly #leaving: AbortController
  readonly #translated: <Value>(waiting: Promise<Value>) => Promise<Value>
  readonly #gone: () => RelayUnreachable

  constructor(
    response: Response,
    silence: number,
    leaving: AbortController,
    translated: <Value>(waiting: Promise<Value>) => Promise<Value>,
    gone: () => RelayUnreachable,
  ) {
    this.status = response.status
    this.contentType = response.headers.get('content-type') ?? ''
    this.#response = response
    this.#silence = silence
    this.#leaving = leaving
    this.#translated = translated
    this.#gone = gone
  }

  /** The whole as a JSON object; null where it is none. */
  async json(): Promise<Fields | null> {
    return jsonOf(await this.#translated(bounded(this.#response)))
  }

  /** Its bytes as they come; leaving the loop closes the connection. Throws RelayUnreachable, Stopped. */
  async *bytes(): AsyncGenerator<Uint8Array, void, undefined> {
    const reader = this.#response.body?.getReader()
    if (!reader) throw this.#gone()
    try {
      for (;;) {
        const next = this.#translated(reader.read())
        const { done, value } = await within(next, this.#silence, this.#leaving, this.#gone)
        if (done) return
        yield value
      }
    } finally {
      this.close()
    }
  }

  close(): void {
    this.#leaving.abort()
  }
}

/** What a relay's or gateway's error says, in whichever of the shapes it comes; its fields are in `told`. */
export class ClassicRefusal extends Refused {
  readonly told: Fields

  constructor(message: string, code: string, status: number, told: Fields) {
    super(message, code, status)
    this.told = told
  }
}

export function refusal(status: number, told: Fields | null): ClassicRefusal {
  const { error, reason } = told ?? {}
  const parts = isObject(error) ? error : {}
  const message = isObject(error) ? parts['message'] : error
  const code = reason ?? parts['code']
  return new ClassicRefusal(
    typeof message === 'string' && message ? message : `The relay answered ${status}.`,
    typeof code === 'string' ? code : 'relay_error',
    status,
    parts,
  )
}

/** A pause that the caller's signal ends. Throws Stopped. */
export function pause(ms: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const woken = (): void => {
      clearTimeout(timer)
      reject(new Stopped())
    }
    const timer = setTimeout(() => {
      signal?.removeEventListener('abort', woken)
      resolve()
    }, ms)
    if (signal?.aborted) woken()
    else signal?.addEventListener('abort', woken, { once: true })
  })
}

async function within<Value>(
  waiting: Promise<Value>,
  ms: number,
  leaving: AbortController,
  gone: () => RelayUnreachable,
): Promise<Value> {
  let timer: ReturnType<typeof setTimeout> | undefined
  const silence = new Promise<never>((_, reject) => {
    timer = setTimeout(() => {
      reject(gone())
      leaving.abort()
    }, ms)
  })
  try {
    return await Promise.race([waiting, silence])
  } finally {
    clearTimeout(timer)
  }
}

/** The body as text, but not more of it than an answer can have. */
async function bounded(response: Response): Promise<string> {
  const reader = response.body?.getReader()
  const decoder = new TextDecoder()
  let text = ''
  while (reader && text.length <= MAX_ANSWER) {
    const { done, value } = await reader.read()
    if (done) return text + decoder.decode()
    text += decoder.decode(value, { stream: true })
  }
  await reader?.cancel()
  return ''
}

function jsonOf(text: string): Fields | null {
  try {
    return object(text)
  } catch {
    return null
  }
}
