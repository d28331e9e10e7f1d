/**
 * What travels inside the seal: an HTTP call in the small, and how its answer begins and ends.
 *
 * The request's body, before sealing: `u16 length ‖ head {"path": "/v1/chat/…"} ‖ the body's bytes`. The answer's sealed
 * records: HEAD `{"status", "content_type"}`, DATA, then FINAL `{"usage"}` or ABORT `{"error", "usage"}`. Fields that are
 * not known are passed over, so that either end may learn more.
 */
import { ApiError, WireError } from '../errors.ts'
import { type Bytes, concat, isObject, object, utf8 } from '../wire/bytes.ts'

/** Paths that any node answers, whatever `model` says. */
export const MODEL_FREE: ReadonlySet<string> = new Set(['/v1/images/generations'])

/** OpenAI's usage object. */
export interface Usage {
  readonly prompt_tokens?: number
  readonly completion_tokens?: number
  readonly total_tokens?: number
}

/** How an answer begins. */
export interface Head {
  readonly status: number
  readonly contentType: string
}

/** The bytes to seal for one call of an OpenAI path. */
export function packCall(path: string, body: Uint8Array): Bytes {
  const head = utf8(JSON.stringify({ path }))
  return concat(Uint8Array.of(head.length >> 8, head.length & 0xff), head, body)
}

/** Read a HEAD record. Throws WireError. */
export function parseHead(data: Bytes): Head {
  const { status, content_type: contentType } = object(data)
  if (typeof status !== 'number' || !Number.isInteger(status) || status < 200 || status >= 600) notAHead()
  // What goes into a header must not be able to end it.
  if (typeof contentType !== 'string' || !/^[\x20-\x7e]*$/.test(contentType)) notAHead()
  return { status, contentType }
}

function notAHead(): never {
  throw new WireError('The answer’s head is not one.')
}

const usageOf = (value: unknown): Usage | null => (isObject(value) ? value : null)

/** Read a FINAL record. Throws WireError. */
export const parseFinal = (data: Bytes): Usage | null => usageOf(object(data)['usage'])

/** Read an ABORT record: the error that ended the answer, and what was used until then. Throws WireError. */
export function parseAbort(data: Bytes): { error: ApiError; usage: Usage | null } {
  const { error, usage } = object(data)
  if (!isObject(error)) throw new WireError('The answer’s abort names no error.')
  const word = (value: unknown, otherwise: string): string => (typeof value === 'string' && value ? value : otherwise)
  return {
    error: new ApiError(
      word(error['message'], 'The answer broke off.'),
      502,
      word(error['type'], 'server_error'),
      word(error['code'], 'aborted'),
    ),
    usage: usageOf(usage),
  }
}
