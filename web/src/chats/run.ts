/** One answer coming in: what arrives is shown at most once per frame and kept as it goes. */
import { type AskOptions, type ChatStream, type ChatUsage, type News, Stopped } from '@tokenplace/client'
import { type Signal, signal } from '@preact/signals'
import { Witness } from './seen.ts'
import { trouble, troubleOf } from './trouble.ts'
import type { Reply } from './types.ts'

/** A question is drawn with its first words, or at the latest after one frame (ms): drawing at once would delay both. */
const DRAW_BY = 16

/** How often what arrived is written to the shelf (ms). */
const SAVE_EVERY = 800

export class Run {
  readonly reply: Signal<Reply>
  /** A sign of life while nothing of the answer is there yet. */
  readonly news = signal<News | null>(null)
  /** Time to draw the question. */
  readonly drawn: Promise<void>
  #draw = (): void => {}
  readonly #stop = new AbortController()
  readonly #save: (reply: Reply) => void
  readonly #witness: Witness
  readonly #began = performance.now()
  readonly #keptText: string
  #text = ''
  #usage: ChatUsage | null = null
  #cut = false
  #firstMs: number | null = null
  #frame = 0
  #savedAt = 0

  constructor(reply: Signal<Reply>, save: (reply: Reply) => void) {
    this.reply = reply
    this.#save = save
    this.#witness = new Witness(reply.peek().seen)
    this.#keptText = reply.peek().text
    this.drawn = new Promise((resolve) => {
      this.#draw = resolve
      setTimeout(resolve, DRAW_BY)
    })
  }

  stop(): void {
    this.#stop.abort()
  }

  /** Read the answer that `start` begins, to its end, whatever that is. */
  async read(start: (options: AskOptions) => Promise<ChatStream>): Promise<void> {
    try {
      const stream = await start({
        signal: this.#stop.signal,
        onNews: (news) => (this.news.value = news),
        onSighting: this.#witness.note,
        onBookmark: (bookmark) => this.#change({ bookmark, seen: this.#witness.seen }, true),
      })
      const { node, standing } = stream.answer
      this.#change({ node, standing, seen: this.#witness.seen })
      for await (const chunk of stream) {
        const choice = chunk.choices[0]
        if (choice?.delta.content) this.#take(choice.delta.content)
        if (choice?.finish_reason === 'length') this.#cut = true
        if (chunk.usage) this.#usage = chunk.usage
      }
      this.#end({ state: 'whole', trouble: null })
    } catch (error) {
      if (error instanceof Stopped) this.#end({ state: 'stopped', trouble: null })
      else this.#end({ state: 'broken', trouble: troubleOf(error) })
    }
  }

  /** The page was closed under it and there is no way back. */
  giveUp(): void {
    this.#end({ state: 'broken', trouble: trouble('interrupted') })
  }

  #take(text: string): void {
    this.#firstMs ??= performance.now() - this.#began
    this.#text += text
    this.news.value = null
    this.#draw()
    // A hidden page paints no frames, but its answers still have to be kept.
    this.#frame ||= document.hidden ? window.setTimeout(this.#show, 100) : requestAnimationFrame(this.#show)
  }

  readonly #show = (): void => {
    this.#frame = 0
    this.#change({ text: this.#shown, firstMs: this.#firstMs, seen: this.#witness.seen })
  }

  /** An answer that is read again from its beginning shows what was there until it is past that. */
  get #shown(): string {
    return this.#text.length >= this.#keptText.length ? this.#text : this.#keptText
  }

  #end(last: Pick<Reply, 'state' | 'trouble'>): void {
    this.#draw()
    cancelAnimationFrame(this.#frame)
    this.#frame = -1
    this.news.value = null
    const wholeMs = performance.now() - this.#began
    const text = last.state === 'whole' ? this.#text : this.#shown
    const { usage } = this.reply.peek()
    this.#change(
      {
        ...last,
        text,
        usage: this.#usage ?? usage,
        cut: this.#cut,
        firstMs: this.#firstMs,
        wholeMs,
        seen: this.#witness.seen,
      },
      true,
    )
  }

  #change(change: Partial<Reply>, saveNow = false): void {
    this.reply.value = { ...this.reply.peek(), ...change }
    const now = performance.now()
    if (!saveNow && now - this.#savedAt < SAVE_EVERY) return
    this.#savedAt = now
    this.#save(this.reply.peek())
  }
}
