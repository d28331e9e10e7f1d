/**
 * The client of the original's protocol: encrypted requests through a relay's or gateway's classic routes.
 *
 *     const client = new ClassicClient('https://relay.example')
 *     const conversation = await client.sendChatMessage('Hello')
 *
 * It seals with the classic envelope, which is as strong as `sealing/classic.ts` says and no stronger. New programs use
 * `Client` of the main entry, whose answers are authenticated and whose nodes are remembered. Its verbs are those of
 * Python's `CryptoClient`; unlike there, what goes wrong is thrown.
 */
import { BadRecord, Refused, Stopped, TokenPlaceError, Truncated, WireError } from '../errors.ts'
import type { ChatChunk, ChatCompletion, ChatMessage } from '../openai/chat.ts'
import { DONE, EventParser } from '../openai/events.ts'
import { ClassicStreamOpener, openClassic, sealClassic } from '../sealing/classic.ts'
import { Envelope, type EnvelopeFields } from '../sealing/envelope.ts'
import { requestSize } from '../sealing/padding.ts'
import { ClassicKey, ClassicPublicKey } from '../sealing/rsa.ts'
import { isObject, object, text, utf8 } from '../wire/bytes.ts'
import { type Asked, ClassicRefusal, ClassicRelay, type ClassicResponse, pause, refusal } from './classic-relay.ts'
import type { Fetch } from './door.ts'

const NEXT_SERVER = '/next_server'
const PUBLIC_KEY = '/api/v1/public-key'
const CHAT = '/api/v1/chat/completions'
const STREAMED_CHAT = '/api/v2/chat/completions'
const DEFAULT_MODEL = 'llama-3-8b-instruct'

/** Seconds. */
const PATIENCE = 300

/** The longest silence in a stream, and the wait when there is no room (ms). */
const SILENCE = 30_000
const NO_ROOM = 2000

/** Servers that a message is tried with, and how often the same one is asked for room. */
const SERVERS = 3
const ROOM = 5

/** Reasons after which another server, or the same one's fresh key, may answer: nothing of the answer was seen. */
const OTHER_SERVER: ReadonlySet<string> = new Set([
  'node_unknown',
  'node_lost',
  'node_draining',
  'key_expired',
  'key_unknown',
  'queue_timeout',
  'engine_failed',
  'engine_full',
  'not_found',
])

export interface ClassicOptions {
  /** Our own key; a fresh one is made where none is given. */
  key?: ClassicKey
  /** For how many seconds an answer is waited for while the relay says that it is under way (300). */
  patience?: number
  /** How the relay is reached, where it is not the runtime's own fetch. */
  fetch?: Fetch
}

export interface ClassicCall {
  signal?: AbortSignal
}

/** A piece of an answer (`delta`), or the whole of it from who knows no streams (`response`). */
export type ClassicEvent =
  { readonly event: 'delta'; readonly data: ChatChunk } | { readonly event: 'response'; readonly data: unknown }

/** Asks through a relay or gateway at a base URL, with an RSA key of its own. Every method throws TokenPlaceError. */
export class ClassicClient {
  readonly #relay: ClassicRelay
  readonly #patience: number
  #key: Promise<ClassicKey> | null
  #server: ClassicPublicKey | null = null

  /** Throws WireError for a `baseUrl` that does not begin with http:// or https://. */
  constructor(baseUrl: string, { key, patience = PATIENCE, fetch }: ClassicOptions = {}) {
    this.#relay = new ClassicRelay(baseUrl, fetch)
    this.#patience = 1000 * patience
    this.#key = key ? Promise.resolve(key) : null
  }

  /** Our public key as it travels: base64 of the PEM text. */
  async clientPublicKey(): Promise<string> {
    return (await this.#ours).public.wire
  }

  /** The key that is sealed to, once it was fetched. */
  get serverPublicKey(): ClassicPublicKey | null {
    return this.#server
  }

  /** Ask for a server's key and keep it. Throws Refused where there is none. */
  async fetchServerPublicKey(path = NEXT_SERVER, { signal }: ClassicCall = {}): Promise<ClassicPublicKey> {
    const told = await this.#relay.get(path, signal)
    const key = told['server_public_key'] ?? told['public_key']
    if (typeof key !== 'string') throw new WireError('What was answered holds no public key.')
    return (this.#server = await ClassicPublicKey.parse(key))
  }

  // -- envelopes ---------------------------------------------------------------------------------------------------------

  /** Seal JSON to the server whose key was fetched, padded with spaces that hide its length. */
  async encryptMessage(message: unknown): Promise<EnvelopeFields> {
    if (!this.#server) throw new WireError('No server’s key is here; call fetchServerPublicKey first.')
    return (await this.#seal(message, this.#server)).fields()
  }

  /** Open what was sealed to us: what its JSON says. Throws Unopenable, WireError. */
  async decryptMessage(encrypted: object): Promise<unknown> {
    return jsonOf(await openClassic(Envelope.parse(encrypted), await this.#ours))
  }

  // -- through a relay ---------------------------------------------------------------------------------------------------

  /** The conversation with the answer behind it. Which model answers is the server's choice. */
  async sendChatMessage(message: string | readonly ChatMessage[], call: ClassicCall = {}): Promise<ChatMessage[]> {
    return this.#atAServer(async () => {
      const asked = await this.#ask(message, false, call)
      try {
        const answer = await this.decryptMessage(await this.#relay.retrieve(asked, this.#patience, call.signal))
        if (Array.isArray(answer)) return answer as ChatMessage[]
      } catch (error) {
        if (error instanceof Stopped) await this.#relay.cancel(asked)
        throw error
      }
      throw new WireError('The answer is no conversation.')
    })
  }

  /** As `sendChatMessage`, in pieces. A loop that ends without an error saw the answer’s end; leaving it frees the node. */
  async *streamChatMessage(
    message: string | readonly ChatMessage[],
    call: ClassicCall = {},
  ): AsyncGenerator<ClassicEvent, void, undefined> {
    // The first piece decides which server it is: nothing was seen before, and nothing is asked again after.
    const [asked, pieces, first] = await this.#atAServer(async () => {
      const asked = await this.#ask(message, true, call)
      const pieces = this.#opened(asked, call)
      try {
        return [asked, pieces, await pieces.next()] as const
      } catch (error) {
        if (!(error instanceof Refused)) await this.#relay.cancel(asked)
        throw error
      }
    })
    let over = first.done === true
    try {
      if (first.done) return
      yield first.value
      yield* pieces
      over = true
    } catch (error) {
      over = error instanceof Refused // the relay has told the end of it
      throw error
    } finally {
      if (!over) await this.#relay.cancel(asked)
    }
  }

  async #ask(message: string | readonly ChatMessage[], stream: boolean, { signal }: ClassicCall): Promise<Asked> {
    const conversation = typeof message === 'string' ? [{ role: 'user', content: message }] : message
    for (let left = ROOM; ; left--) {
      const server = this.#server ?? (await this.fetchServerPublicKey(NEXT_SERVER, signal ? { signal } : {}))
      const sealed = (await this.#seal(conversation, server)).relayFields()
      const ends = { server_public_key: server.wire, client_public_key: await this.clientPublicKey() }
      try {
        return await this.#relay.ask({ ...ends, ...sealed }, stream, signal)
      } catch (error) {
        const noRoom = error instanceof Refused && (error.status === 429 || error.status === 503)
        if (!noRoom || !left) throw error
        await pause(NO_ROOM, signal)
      }
    }
  }

  async *#opened(asked: Asked, { signal }: ClassicCall): AsyncGenerator<ClassicEvent, void, undefined> {
    const opener = new ClassicStreamOpener(await this.#ours)
    for await (const { chunks } of this.#relay.pieces(asked, this.#patience, signal)) {
      for (const chunk of Array.isArray(chunks) ? (chunks as unknown[]) : []) {
        if (!isObject(chunk)) throw new WireError('A piece of the stream is no envelope.')
        // a node that knows no streams answers whole
        if ('chat_history' in chunk) yield { event: 'response', data: await this.decryptMessage(chunk) }
        else yield { event: 'delta', data: jsonOf(await opener.open(Envelope.parse(chunk))) as ChatChunk }
      }
    }
  }

  /** Try again at another server where the one at hand is no more, or with its fresh key. */
  async #atAServer<Value>(step: () => Promise<Value>): Promise<Value> {
    for (let left = SERVERS - 1; ; left--) {
      try {
        return await step()
      } catch (error) {
        if (!(error instanceof TokenPlaceError) || !OTHER_SERVER.has(error.code) || !left) throw error
        this.#server = await freshKey(error)
      }
    }
  }

  // -- through the API ---------------------------------------------------------------------------------------------------

  /** An encrypted chat completion: OpenAI's response object, opened. */
  sendApiRequest(
    messages: readonly ChatMessage[],
    { model = DEFAULT_MODEL, signal }: ClassicCall & { model?: string } = {},
  ): Promise<ChatCompletion> {
    return this.#atAServer(async () => {
      const request = await this.#apiRequest(messages, model, signal)
      const { status, told } = await this.#relay.post(CHAT, request, this.#patience, signal)
      if (status !== 200 || !told) throw refusal(status, told)
      return (await this.#openWhole(told)) as ChatCompletion
    })
  }

  /** The same in pieces, as they come. Only a loop that ends without an error saw the end. */
  async *streamChatCompletion(
    messages: readonly ChatMessage[],
    { model = DEFAULT_MODEL, signal }: ClassicCall & { model?: string } = {},
  ): AsyncGenerator<ClassicEvent, void, undefined> {
    const response = await this.#atAServer(async () => {
      const request = { ...(await this.#apiRequest(messages, model, signal)), stream: true }
      const response = await this.#relay.stream(STREAMED_CHAT, request, SILENCE, signal)
      if (response.status === 200) return response
      throw refusal(response.status, await response.json())
    })
    try {
      if (response.contentType.startsWith('text/event-stream')) yield* this.#deltas(response)
      else yield { event: 'response', data: await this.#openWhole((await response.json()) ?? {}) }
    } finally {
      response.close()
    }
  }

  async *#deltas(response: ClassicResponse): AsyncGenerator<ClassicEvent, void, undefined> {
    const parser = new EventParser()
    const opener = new ClassicStreamOpener(await this.#ours)
    for await (const bytes of response.bytes()) {
      for (const { data } of parser.feed(bytes)) {
        if (data === DONE) return
        const piece = object(data)
        if (piece['event'] === 'error' || 'error' in piece) throw refusal(200, piece)
        if (!piece['encrypted'] || !isObject(piece['data'])) {
          throw new BadRecord('A piece came in the open that should be sealed; nothing of it can be trusted.')
        }
        yield { event: 'delta', data: jsonOf(await opener.open(Envelope.parse(piece['data']))) as ChatChunk }
      }
    }
    throw new Truncated()
  }

  async #apiRequest(messages: readonly ChatMessage[], model: string, signal?: AbortSignal) {
    const server = this.#server ?? (await this.#anyKey(signal))
    return {
      model,
      encrypted: true,
      client_public_key: await this.clientPublicKey(),
      key_id: server.keyId,
      messages: (await this.#seal(messages, server)).fields(),
    }
  }

  /** A gateway has a key of a node's to give; a relay without one has servers. */
  async #anyKey(signal?: AbortSignal): Promise<ClassicPublicKey> {
    const call = signal ? { signal } : {}
    try {
      return await this.fetchServerPublicKey(PUBLIC_KEY, call)
    } catch (error) {
      if (!(error instanceof Refused)) throw error
      return this.fetchServerPublicKey(NEXT_SERVER, call)
    }
  }

  #openWhole(told: object): Promise<unknown> {
    const { data, encrypted_content: older } = told as Record<string, unknown>
    const sealed = data ?? older
    if (!isObject(sealed)) throw new WireError('The answer is not sealed to us.')
    return this.decryptMessage(sealed)
  }

  get #ours(): Promise<ClassicKey> {
    return (this.#key ??= ClassicKey.generate())
  }

  async #seal(message: unknown, server: ClassicPublicKey): Promise<Envelope> {
    const words = utf8(JSON.stringify(message))
    const padded = new Uint8Array(requestSize(words.length)).fill(0x20)
    padded.set(words)
    return sealClassic(padded, server)
  }
}

/** The key to seal to instead, where an error brings it. */
async function freshKey(error: TokenPlaceError): Promise<ClassicPublicKey | null> {
  const key = error instanceof ClassicRefusal ? error.told['public_key'] : null
  if (typeof key !== 'string') return null
  return ClassicPublicKey.parse(key).catch(() => null)
}

/** What opened bytes say. */
function jsonOf(words: Uint8Array): unknown {
  try {
    return JSON.parse(text(words))
  } catch {
    throw new BadRecord('What was opened is not JSON; it may have been altered on the way.')
  }
}
