/** Server-sent events, read from bytes in any cut (HTML standard, "parsing an event stream"). */
import { TooLarge } from '../errors.ts'

const MAX_EVENT = 8 * 1024 * 1024

/** One event: its name ("" is a message) and its data. */
export interface ServerEvent {
  readonly name: string
  readonly data: string
}

/** OpenAI's mark of a whole stream. */
export const DONE = '[DONE]'

/** Cuts a byte stream into events. An event that the stream's end cuts off is no event. */
export class EventParser {
  readonly #decoder = new TextDecoder()
  #rest = ''
  #afterCr = false
  #name = ''
  #data: string[] = []

  /** Take more bytes, give the events that are now whole. Throws TooLarge. */
  feed(chunk: Uint8Array): ServerEvent[] {
    let more = this.#decoder.decode(chunk, { stream: true })
    if (!more) return []
    if (this.#afterCr && more.startsWith('\n')) more = more.slice(1) // a CRLF that was cut in two
    this.#afterCr = more ? more.endsWith('\r') : false
    const lines = (this.#rest + more).split(/\r\n|\n|\r/)
    this.#rest = lines.pop() ?? ''
    if (this.#rest.length > MAX_EVENT) throw new TooLarge(`A server-sent event may have ${MAX_EVENT} characters.`)
    return lines.flatMap((line) => this.#line(line))
  }

  #line(line: string): ServerEvent[] {
    if (line) {
      const [, field, value = ''] = /^([^:]*):? ?(.*)$/s.exec(line) ?? []
      if (field === 'data') this.#data.push(value)
      else if (field === 'event') this.#name = value
      return []
    }
    const events = this.#data.length ? [{ name: this.#name, data: this.#data.join('\n') }] : []
    this.#name = ''
    this.#data = []
    return events
  }
}
