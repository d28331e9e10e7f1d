/**
 * The client: private answers from volunteers' machines.
 *
 *     const client = new Client('https://relay.example')
 *     const stream = await client.chat.completions.create({ messages, stream: true }, { signal })
 *     for await (const chunk of stream) …
 */
import { ApiError, NoNode, UntrustedCard, WireError } from '../errors.ts'
import { MODEL_FREE, packCall } from '../openai/calls.ts'
import type { ChatCompletion, ChatRequest } from '../openai/chat.ts'
import { servedAs } from '../openai/names.ts'
import { requireCrypto, suiteFor } from '../sealing/hpke.ts'
import { utf8 } from '../wire/bytes.ts'
import type { ModelCard } from '../wire/card.ts'
import { type NodeId, parseNodeId } from '../wire/ids.ts'
import { Kem } from '../wire/request.ts'
import { Answer, type AskOptions, type Bookmark } from './answer.ts'
import { ChatStream } from './chatstream.ts'
import { Door, type Fetch, type Visit } from './door.ts'
import { Relays } from './relays.ts'
import { type Memory, type Standing, Trust } from './trust.ts'

const CHAT = '/v1/chat/completions'

/** Seconds a job outlives our connection, so that we can come back to it. */
const LINGER = 5

/** A model somebody serves now: how many nodes do, and what one of their cards says of it. */
export interface Served {
  readonly id: string
  readonly nodes: number
  readonly card: ModelCard | null
}

/** A node that the relay lists and whose card holds. */
export interface Met {
  readonly node: NodeId
  readonly standing: Standing
  readonly models: readonly ModelCard[]
  readonly free: number
  readonly queued: number
}

export interface ClientOptions {
  /** The only node ids to be asked, if any are given. */
  pins?: Iterable<string>
  /** Ids of those whose vouchers are believed: the nodes they name may be asked too, and besides pins nobody else. */
  issuers?: Iterable<string>
  /** Their vouchers. One that is bad makes every question throw what `client.trust.vouch` throws, which takes later ones. */
  vouchers?: Iterable<string>
  /** Remembers the nodes met; hand in one with a shelf to remember them between runs. */
  memory?: Memory
  /** Seconds a job outlives a broken connection (5; the relay allows 60). */
  linger?: number
  /** Ask the node that answered last while it has a free slot: it may know the beginning of the prompt still. */
  sticky?: boolean
  /** How the relay is reached, where it is not the runtime's own fetch. */
  fetch?: Fetch
}

/** Asks nodes through relays, sealed end to end. `relays` are base URLs, tried in order. */
export class Client {
  readonly trust: Trust
  readonly #relays: Relays
  readonly #linger: number

  constructor(
    relays: string | readonly string[],
    { pins = [], issuers = [], vouchers = [], memory, linger = LINGER, sticky, fetch }: ClientOptions = {},
  ) {
    this.trust = new Trust([...pins].map(parseNodeId), [...issuers].map(parseNodeId), memory)
    const doors = (typeof relays === 'string' ? [relays] : relays).map((url) => new Door(url, fetch))
    const vouched = Promise.all([...vouchers].map((text) => this.trust.vouch(text)))
    vouched.catch(() => {}) // told when asking
    this.#relays = new Relays(doors, () => vouched.then(() => this.trust.named), sticky)
    this.#linger = linger
  }

  /** OpenAI's surface. */
  readonly chat = {
    completions: {
      create: ((request: ChatRequest, options: AskOptions = {}) => this.#chat(request, options)) as CreateChat,
    },
  }

  /** What is served right now. Throws RelayUnreachable. */
  async models(visit: Visit = {}): Promise<Served[]> {
    const counts = new Map<string, number>()
    const cards = new Map<string, ModelCard>()
    for (const [, directory] of await this.#relays.directories(null, visit)) {
      for (const [id, nodes] of directory.models) counts.set(id, Math.max(nodes, counts.get(id) ?? 0))
      for (const { card } of directory.listings) {
        for (const model of card.body.models) if (!cards.has(model.id)) cards.set(model.id, model)
      }
    }
    return [...counts]
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .map(([id, nodes]) => ({ id, nodes, card: cards.get(id) ?? null }))
  }

  /** The nodes that could answer now, the best choice first, as far as they are trusted. Throws RelayUnreachable. */
  async nodes(model: string | null = null, visit: Visit = {}): Promise<Met[]> {
    const met: Met[] = []
    for (const [, directory] of await this.#relays.directories(model, visit)) {
      for (const { card, free, queued } of directory.listings) {
        try {
          const { body, standing } = await this.trust.check(card)
          met.push({ node: body.node, standing, models: body.models, free, queued })
        } catch (error) {
          if (!(error instanceof UntrustedCard)) throw error
        }
      }
    }
    return met
  }

  /** Get ready for a question about to be asked: find who serves `model`, check the cards, load what sealing needs. */
  async prepare(model: string | null, visit: Visit = {}): Promise<void> {
    requireCrypto()
    await Promise.all([suiteFor(Kem.X25519_MLKEM768), this.nodes(model, visit)])
  }

  /**
   * Make one OpenAI call of `path` (`/v1/…`). `body` is the JSON body, as an object or as bytes or text (then say the
   * `model`, for the choice of a node). Resolves when the answer's head is here; an answer that is not read must be closed.
   *
   * Throws NoNode, RelayUnreachable, Refused, UntrustedCard, JobFailed, Stopped, InsecureContext, and ApiError for what
   * broke the answer before its head. A refusal by the node itself is an answer: look at `head.status`.
   */
  async ask(
    path: string,
    body: object | string | Uint8Array,
    options: AskOptions & { model?: string | null | undefined } = {},
  ): Promise<Answer> {
    requireCrypto()
    const bytes = body instanceof Uint8Array ? body : utf8(typeof body === 'string' ? body : JSON.stringify(body))
    const named: unknown = options.model ?? ('model' in Object(body) ? (body as { model: unknown }).model : null)
    const model = typeof named === 'string' && !MODEL_FREE.has(path) ? servedAs(named) : null
    return Answer.ask(this.#way, packCall(path, bytes), model, options)
  }

  /** Come back to an answer from its beginning: while it is being made, and for half a minute after. Throws as `ask`. */
  async comeBack(bookmark: Bookmark, options: AskOptions = {}): Promise<Answer> {
    requireCrypto()
    return Answer.comeBack(this.#way, bookmark, options)
  }

  /** `comeBack` for an answer of `chat.completions.create` with `stream`. */
  async comeBackToChat(bookmark: Bookmark, options: AskOptions = {}): Promise<ChatStream> {
    return new ChatStream(await accepted(await this.comeBack(bookmark, options)))
  }

  get #way() {
    return { relays: this.#relays, trust: this.trust, linger: this.#linger }
  }

  async #chat(request: ChatRequest, options: AskOptions): Promise<ChatStream | ChatCompletion> {
    const model = request.model ?? (await this.#anyModel(options))
    const answer = await accepted(await this.ask(CHAT, { ...request, model }, options))
    if (request.stream) return new ChatStream(answer)
    try {
      return JSON.parse(await answer.text()) as ChatCompletion
    } catch (error) {
      if (error instanceof SyntaxError) throw new WireError('The answer is not JSON.')
      throw error
    }
  }

  async #anyModel({ signal, onSighting }: AskOptions): Promise<string> {
    const served = await this.models({ signal, onSighting })
    const most = served.reduce<Served | null>((best, each) => (best && best.nodes >= each.nodes ? best : each), null)
    if (!most) throw new NoNode('No node is connected to the relay right now; try again in a moment.')
    return most.id
  }
}

/** OpenAI's `create`: a stream when it was asked for, else the whole answer. Without a model, the most served one. */
export interface CreateChat {
  (request: ChatRequest & { readonly stream: true }, options?: AskOptions): Promise<ChatStream>
  (request: ChatRequest & { readonly stream?: false }, options?: AskOptions): Promise<ChatCompletion>
  (request: ChatRequest, options?: AskOptions): Promise<ChatStream | ChatCompletion>
}

/** The answer, unless it is a refusal: that is thrown as ApiError. */
async function accepted(answer: Answer): Promise<Answer> {
  const { status } = answer.head
  if (status === 200) return answer
  throw ApiError.parse(status, await answer.text())
}
