/** A streamed chat answer as OpenAI's chunks. */
import { ApiError, WireError } from '../errors.ts'
import type { ChatChunk } from '../openai/chat.ts'
import { DONE, EventParser } from '../openai/events.ts'
import type { Answer } from './answer.ts'

/**
 * Read it once with `for await`. A loop that ends without an error saw the whole answer; leaving it early stops the node.
 * `answer` tells who answers, through whom, and what it took.
 */
export class ChatStream implements AsyncIterable<ChatChunk> {
  readonly answer: Answer

  constructor(answer: Answer) {
    this.answer = answer
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<ChatChunk, void, undefined> {
    const parser = new EventParser()
    for await (const bytes of this.answer.chunks()) {
      for (const { name, data } of parser.feed(bytes)) {
        if (name === 'error') throw ApiError.parse(502, data)
        if (data !== DONE) yield parseChunk(data)
      }
    }
  }

  /** Stop the answer. */
  close(): Promise<void> {
    return this.answer.close()
  }
}

function parseChunk(data: string): ChatChunk {
  try {
    return JSON.parse(data) as ChatChunk
  } catch {
    throw new WireError('A piece of the answer is not JSON.')
  }
}
