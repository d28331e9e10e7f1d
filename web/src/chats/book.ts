/** The chats of this page, the one that is open, and the answers that are coming in. */
import { Client, Memory, parseNodeId, type Served, TokenPlaceError, Trust } from '@tokenplace/client'
import { batch, computed, effect, type ReadonlySignal, type Signal, signal } from '@preact/signals'
import { lastChat, lastModel, nodeMemory, pins, vouchers } from '../settings.ts'
import { Run } from './run.ts'
import { NOTHING_SEEN } from './seen.ts'
import type { Shelf } from './shelf.ts'
import { troubleOf } from './trouble.ts'
import type { Chat, Message, Picture, Question, Reply, Trouble } from './types.ts'
import { titleOf, wordsFor } from './words.ts'

/** Seconds an answer waits for a page that is being reloaded, or a phone that looks away. */
const LINGER = 12

/** How often we ask what is served, while somebody looks (ms). */
const LOOK_AGAIN = 20_000

/** An answer older than this is not waited for at any node any more (ms). */
const LONGEST_ANSWER = 30 * 60_000

const newId = (): string => crypto.randomUUID?.() ?? String(Math.random()).slice(2)

/** Only one window at a time reads an answer. */
const lockOf = (reply: string): string => `answer ${reply}`

const freshChat = (): Chat => ({ id: newId(), title: '', at: Date.now(), model: null, system: '', temperature: null })

export class Book {
  /** Every chat that has something in it, the newest first. */
  readonly chats = signal<readonly Chat[]>([])
  readonly current: Signal<Chat>
  readonly messages = signal<readonly Signal<Message>[]>([])
  /** What is served now; null until we know. */
  readonly served = signal<readonly Served[] | null>(null)
  /** Why we do not know what is served. */
  readonly away = signal<Trouble | null>(null)
  /** A word for the person that no message carries. */
  readonly notice = signal('')
  readonly runs = signal<ReadonlyMap<string, Run>>(new Map())
  /** The answer that is coming in the open chat. */
  readonly running: ReadonlySignal<Run | null>
  readonly model: ReadonlySignal<string>
  readonly client: Client
  readonly lasting: boolean
  readonly #shelf: Shelf
  readonly #loaded = new Map<string, readonly Signal<Message>[]>()
  readonly #vouched = new Map<string, string>()
  #vouching: Promise<unknown> = Promise.resolve()
  #looking = 0

  constructor(shelf: Shelf, relay: string) {
    this.#shelf = shelf
    this.lasting = shelf.lasting
    this.client = new Client(relay, { memory: new Memory(nodeMemory), linger: LINGER })
    this.current = signal(freshChat())
    this.running = computed(() => {
      for (const message of this.messages.value) {
        const run = this.runs.value.get(message.peek().id)
        if (run) return run
      }
      return null
    })
    this.model = computed(() => {
      const ids = (this.served.value ?? []).map(({ id }) => id)
      const wanted = [this.current.value.model ?? '', lastModel.value].filter(Boolean)
      const best = [...(this.served.value ?? [])].sort((a, b) => b.nodes - a.nodes)[0]
      return wanted.find((id) => ids.includes(id)) ?? best?.id ?? wanted[0] ?? ''
    })
    effect(() => {
      this.client.trust.pins = new Set(pins.value.map(parseNodeId))
    })
    effect(() => this.#believe())
  }

  /** Read what is kept, open the chat that was open, and begin to look at who is there. */
  async begin(): Promise<void> {
    await this.#vouching
    this.chats.value = (await this.#shelf.chats()).sort((a, b) => b.at - a.at)
    document.addEventListener('visibilitychange', () => void (document.hidden || this.look()))
    window.setInterval(() => void (document.hidden || this.look()), LOOK_AGAIN)
    void this.look()
    // What sealing needs is loaded before the first question, not with it; what goes wrong here is told when asking.
    this.client.prepare(null).catch(() => {})
    const open = this.chats.value.find(({ id }) => id === lastChat.value)
    if (open) await this.open(open.id)
  }

  /** Nothing can be asked here, and why. */
  refuse(why: Trouble): void {
    this.away.value = why
    this.served.value = []
  }

  /** Ask the relay who is there. */
  async look(): Promise<void> {
    const mine = ++this.#looking
    try {
      const served = await this.client.models()
      if (mine !== this.#looking) return
      this.served.value = served
      this.away.value = null
    } catch (error) {
      if (mine === this.#looking) this.away.value = troubleOf(error)
    }
  }

  // -- chats -----------------------------------------------------------------------------------------------------------

  newChat(): void {
    this.current.value = freshChat()
    this.messages.value = []
    lastChat.value = ''
  }

  async open(id: string): Promise<void> {
    const chat = this.chats.peek().find((each) => each.id === id)
    if (!chat) return
    let messages = this.#loaded.get(id)
    if (!messages) {
      messages = (await this.#shelf.messages(id)).map((message) => signal(message))
      this.#loaded.set(id, messages)
      for (const message of messages) this.#pickUp(message)
    }
    this.current.value = chat
    this.messages.value = messages
    lastChat.value = id
  }

  /** Change what the open chat is: its title, model, system prompt, temperature. */
  change(change: Partial<Omit<Chat, 'id'>>): void {
    const chat = { ...this.current.peek(), ...change }
    this.current.value = chat
    if (change.model) lastModel.value = change.model
    if (this.messages.peek().length) this.#keep(chat)
  }

  drop(id: string): void {
    for (const message of this.#loaded.get(id) ?? []) this.runs.peek().get(message.peek().id)?.stop()
    this.#loaded.delete(id)
    this.chats.value = this.chats.peek().filter((chat) => chat.id !== id)
    if (this.current.peek().id === id) this.newChat()
    this.#written(this.#shelf.dropChat(id))
  }

  dropAll(): void {
    for (const run of this.runs.peek().values()) run.stop()
    this.#loaded.clear()
    this.chats.value = []
    this.newChat()
    this.#written(this.#shelf.clear())
  }

  /** Everything, for export. */
  async all(): Promise<{ chat: Chat; messages: Message[] }[]> {
    return Promise.all(
      this.chats.peek().map(async (chat) => ({ chat, messages: await this.#shelf.messages(chat.id) })),
    )
  }

  #keep(chat: Chat): void {
    this.chats.value = [chat, ...this.chats.peek().filter(({ id }) => id !== chat.id)].sort((a, b) => b.at - a.at)
    this.#written(this.#shelf.putChat(chat))
  }

  /** Nothing waits for the disk; when it refuses, the person is told. */
  #written(writing: Promise<void>): void {
    writing.catch(
      () => (this.notice.value = 'This browser has no room left to keep this chat. Export it, or delete old ones.'),
    )
  }

  // -- questions and answers -------------------------------------------------------------------------------------------

  /** Ask in the open chat. */
  ask(text: string, pictures: readonly Picture[]): Promise<void> {
    return this.#askAfter(this.messages.peek(), text, pictures)
  }

  /** Answer the question before this reply once more; the reply and what follows it go. */
  again(reply: string): void {
    const kept = this.#cutAt(reply)
    if (kept) void this.#answer(this.current.peek(), kept)
  }

  /** Ask another question in the place of one; what follows it goes. */
  askInstead(question: string, text: string): void {
    const before = this.messages
      .peek()
      .find((message) => message.peek().id === question)
      ?.peek()
    const kept = this.#cutAt(question)
    if (kept) void this.#askAfter(kept, text, before?.role === 'user' ? before.pictures : [])
  }

  /** Resolves when the question is drawn. */
  #askAfter(kept: readonly Signal<Message>[], text: string, pictures: readonly Picture[]): Promise<void> {
    const before = this.current.peek()
    const at = Math.max(Date.now(), (kept.at(-1)?.peek().at ?? 0) + 1)
    const chat = { ...before, title: before.title || titleOf(text), model: this.model.peek() || null, at }
    const question: Question = { role: 'user', id: newId(), chat: chat.id, at, text, pictures }
    const drawn = this.#answer(chat, [...kept, signal<Message>(question)])
    this.#written(this.#shelf.putMessages([question]))
    return drawn
  }

  /** Go on with an answer that broke off. */
  goOn(reply: string): void {
    const message = this.messages.peek().find((each) => each.peek().id === reply)
    if (message?.peek().role !== 'assistant') return
    message.value = { ...(message.peek() as Reply), state: 'coming', trouble: null }
    this.#pickUp(message)
  }

  /** The messages before that one; it and what follows it are forgotten. */
  #cutAt(id: string): readonly Signal<Message>[] | null {
    const messages = this.messages.peek()
    const at = messages.findIndex((message) => message.peek().id === id)
    if (at < 0) return null
    const gone = messages.slice(at).map((message) => message.peek().id)
    for (const each of gone) this.runs.peek().get(each)?.stop()
    this.#written(this.#shelf.dropMessages(gone))
    return messages.slice(0, at)
  }

  #answer(chat: Chat, asked: readonly Signal<Message>[]): Promise<void> {
    const model = this.model.peek()
    const words = wordsFor(
      chat,
      asked.map((message) => message.peek()),
    )
    const reply = signal<Message>({
      role: 'assistant',
      id: newId(),
      chat: chat.id,
      at: (asked.at(-1)?.peek().at ?? Date.now()) + 1,
      text: '',
      state: 'coming',
      model: model || null,
      trouble: null,
      node: null,
      standing: null,
      usage: null,
      cut: false,
      firstMs: null,
      wholeMs: null,
      bookmark: null,
      seen: NOTHING_SEEN,
    })
    this.#loaded.set(chat.id, [...asked, reply])
    const run = this.#newRun(reply as Signal<Reply>)
    const working = run.read((options) =>
      this.client.chat.completions.create(
        {
          ...(model ? { model } : {}),
          messages: words,
          stream: true,
          stream_options: { include_usage: true },
          ...(chat.temperature === null ? {} : { temperature: chat.temperature }),
        },
        options,
      ),
    )
    // Nobody else knows a question that was just asked: waiting for the lock would only delay it.
    if (navigator.locks) void navigator.locks.request(lockOf(reply.peek().id), () => working)
    return run.drawn.then(() => {
      batch(() => {
        this.#keep(chat)
        this.#begun(run)
        if (this.current.peek().id !== chat.id) return
        lastChat.value = chat.id
        this.current.value = chat
        this.messages.value = this.#loaded.get(chat.id) ?? []
      })
      void working.then(() => this.#over(run))
    })
  }

  /** An answer that was coming when the page was last closed: go on with it, unless another window has it. */
  #pickUp(message: Signal<Message>): void {
    const reply = message.peek()
    if (reply.role !== 'assistant' || reply.state !== 'coming') return
    const { bookmark } = reply
    const pickUp = async (): Promise<void> => {
      const run = this.#newRun(message as Signal<Reply>)
      this.#begun(run)
      if (bookmark && Date.now() - reply.at < LONGEST_ANSWER) {
        await run.read((options) => this.client.comeBackToChat(bookmark, options))
      } else run.giveUp()
      this.#over(run)
    }
    // Browsers without locks have one window as far as we know.
    const { locks } = navigator
    if (!locks) return void pickUp()
    void locks.request(lockOf(reply.id), { ifAvailable: true }, async (lock) => {
      if (lock) return pickUp()
      // Another window reads it; when that is done, or closed, it is our turn to look.
      void locks.request(lockOf(reply.id), async () => {
        const now = (await this.#shelf.messages(reply.chat)).find(({ id }) => id === reply.id)
        if (now) message.value = now
        if (now?.role === 'assistant' && now.state === 'coming') await pickUp()
      })
    })
  }

  #newRun(reply: Signal<Reply>): Run {
    return new Run(reply, (changed) => this.#save(changed))
  }

  #begun(run: Run): void {
    this.runs.value = new Map(this.runs.peek()).set(run.reply.peek().id, run)
  }

  #over(run: Run): void {
    const rest = new Map(this.runs.peek())
    rest.delete(run.reply.peek().id)
    this.runs.value = rest
  }

  #save(reply: Reply): void {
    const dropped = !this.#loaded.get(reply.chat)?.some((message) => message.peek().id === reply.id)
    if (!dropped) this.#written(this.#shelf.putMessages([reply]))
  }

  // -- trust -----------------------------------------------------------------------------------------------------------

  pin(node: string): void {
    try {
      pins.value = [...new Set([...pins.peek(), parseNodeId(node)])]
    } catch (error) {
      if (!(error instanceof TokenPlaceError)) throw error
    }
  }

  unpin(node: string): void {
    pins.value = pins.peek().filter((pin) => pin !== node)
  }

  /**
   * Ask nodes that this issuer vouches for, and from then on no others but those. Throws TokenPlaceError when the voucher
   * is not by that issuer, has expired, or is none.
   */
  async trust(issuer: string, text: string): Promise<void> {
    const id = parseNodeId(issuer)
    const { nodes, expiresMs } = await new Trust([], [id]).vouch(text)
    const believed = { issuer: id, text: text.trim(), nodes: nodes.length, until: expiresMs }
    vouchers.value = [...vouchers.peek().filter((each) => each.issuer !== id), believed]
    await this.#vouching
  }

  distrust(issuer: string): void {
    vouchers.value = vouchers.peek().filter((each) => each.issuer !== issuer)
  }

  /** The client believes what the settings say; a voucher that has expired counts for nothing. */
  #believe(): void {
    const { trust } = this.client
    const now = new Map(vouchers.value.map(({ issuer, text }) => [issuer, text]))
    trust.issuers = new Set([...now.keys()].map(parseNodeId))
    for (const [issuer, text] of this.#vouched) if (now.get(issuer) !== text) trust.unvouch(parseNodeId(issuer))
    const fresh = [...now].filter(([issuer, text]) => this.#vouched.get(issuer) !== text)
    this.#vouched.clear()
    for (const [issuer, text] of now) this.#vouched.set(issuer, text)
    this.#vouching = Promise.allSettled([this.#vouching, ...fresh.map(([, text]) => trust.vouch(text))])
  }
}
