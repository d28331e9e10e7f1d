/**
 * Every way a client of token.place can fail, as one tree; the names and codes are those of the Python side.
 *
 *     TokenPlaceError
 *     ├── WireError                bytes that break the format
 *     │   └── TooLarge             … or a bound of the protocol
 *     ├── SealError                the seal does not hold
 *     │   ├── KeyUnknown           the card is out of date
 *     │   ├── ClockSkew            this machine's clock and the node's differ too much
 *     │   ├── BadRecord            a record of the answer was altered, moved or repeated
 *     │   ├── Truncated            the answer stopped before its authenticated end
 *     │   ├── UntrustedCard        a node's card, or a voucher, is not what the client trusts
 *     │   ├── Unopenable           a message of the original's protocol does not open
 *     │   ├── NoPkcs1v15           it would take PKCS#1 v1.5, which WebCrypto has not
 *     │   └── InsecureContext      the runtime offers no cryptography here (plain http away from localhost)
 *     ├── Refused                  the relay will not take this (an HTTP status and a code)
 *     ├── RelayUnreachable         no relay answered
 *     ├── NoNode                   no node serves that model now
 *     ├── JobFailed                a job ended without an answer; `outcome` names how
 *     ├── Stopped                  the caller's AbortSignal was raised
 *     └── ApiError                 an answer in OpenAI's error shape
 *
 * `code` is stable and safe to match on; `message` is for people and says what to do next.
 */
export class TokenPlaceError extends Error {
  readonly code: string

  constructor(code: string, message: string) {
    super(message)
    this.name = new.target.name
    this.code = code
  }
}

/** Bytes that are not of the token.place format; client and relay may be of different versions. */
export class WireError extends TokenPlaceError {
  constructor(message: string, code = 'bad_format') {
    super(code, message)
  }
}

/** The message is larger than the protocol allows; send less at once. */
export class TooLarge extends WireError {
  constructor(message: string) {
    super(message, 'too_large')
  }
}

/** The seal does not hold. */
export class SealError extends TokenPlaceError {}

/** The request would be sealed to a key that the node no longer holds; fetch a fresh card. */
export class KeyUnknown extends SealError {
  constructor(message = 'The node’s card is out of date; fetch a fresh one.') {
    super('key_unknown', message)
  }
}

/** The two clocks are more than five minutes apart. */
export class ClockSkew extends SealError {
  constructor(message = 'The node’s sealing keys are not valid yet; set this machine’s clock.') {
    super('clock_skew', message)
  }
}

/** A piece of the answer was altered, moved or repeated on the way; nothing after it can be trusted. */
export class BadRecord extends SealError {
  constructor(message: string) {
    super('bad_record', message)
  }
}

/** The answer stopped before its authenticated end; what arrived is not the whole answer. */
export class Truncated extends SealError {
  constructor(message = 'The answer stopped before its authenticated end; what arrived is not the whole answer.') {
    super('truncated', message)
  }
}

/** The relay shows a card that is not signed by a key you trust; nothing was sent. */
export class UntrustedCard extends SealError {
  constructor(message: string) {
    super('untrusted_card', message)
  }
}

/** A classic message that was altered on the way, or sealed to another key; it never says which. */
export class Unopenable extends SealError {
  constructor(message = 'This message does not open: it was altered on the way or sealed to another key.') {
    super('unopenable', message)
  }
}

/** PKCS#1 v1.5 encryption, the padding of old JavaScript clients, was left out of WebCrypto for being unsafe. */
export class NoPkcs1v15 extends SealError {
  constructor() {
    super(
      'pkcs1v15_unavailable',
      'WebCrypto has no PKCS#1 v1.5 encryption; use OAEP, or Python’s client for old peers.',
    )
  }
}

/** No WebCrypto: browsers offer it on https and localhost only. Nothing was sent, and nothing weaker is used instead. */
export class InsecureContext extends SealError {
  constructor() {
    super(
      'insecure_context',
      'Browsers encrypt on https and localhost only. Open the relay by https, or run `tokenplace gateway` here.',
    )
  }
}

/** The relay refused the request. `retryAfter` is in seconds. */
export class Refused extends TokenPlaceError {
  readonly status: number
  readonly retryAfter: number | null

  constructor(message: string, code = 'refused', status = 400, retryAfter: number | null = null) {
    super(code, message)
    this.status = status
    this.retryAfter = retryAfter
  }

  /** Whether the relay cannot reach that job or node, though another relay might. */
  get elsewhere(): boolean {
    return ['node_unknown', 'job_unknown', 'draining', 'store_unavailable'].includes(this.code)
  }
}

/** No relay could be reached; check the address and the network. */
export class RelayUnreachable extends TokenPlaceError {
  constructor(message: string) {
    super('relay_unreachable', message)
  }
}

/** No node that serves this model is connected right now. */
export class NoNode extends TokenPlaceError {
  constructor(message: string) {
    super('no_node', message)
  }
}

/** The job ended without a whole answer; `outcome` is the named reason. */
export class JobFailed extends TokenPlaceError {
  readonly outcome: string

  constructor(outcome: string, message = '') {
    super(outcome, message || `The request ended without a whole answer: ${outcome}.`)
    this.outcome = outcome
  }
}

/** The caller stopped the request; the node was told. Its name is what programs expect of an aborted call. */
export class Stopped extends TokenPlaceError {
  override readonly name: string = 'AbortError'

  constructor() {
    super('cancelled', 'The request was stopped.')
  }
}

/** OpenAI's error body. */
export interface ErrorBody {
  error: { message: string; type: string; param: string | null; code: string | null }
}

/** An error in OpenAI's shape, told by the node under the seal. */
export class ApiError extends TokenPlaceError {
  readonly status: number
  readonly type: string
  readonly param: string | null

  constructor(
    message: string,
    status: number,
    type: string,
    code: string | null = null,
    param: string | null = null,
  ) {
    super(code ?? type, message)
    this.status = status
    this.type = type
    this.param = param
  }

  /** Read the body of an error answer; what cannot be read is still an error. */
  static parse(status: number, body: string): ApiError {
    try {
      const { error } = JSON.parse(body) as { error: Record<string, unknown> }
      if (typeof error['message'] === 'string') {
        const text = (value: unknown): string | null => (typeof value === 'string' ? value : null)
        return new ApiError(
          error['message'],
          status,
          text(error['type']) ?? 'server_error',
          text(error['code']),
          text(error['param']),
        )
      }
    } catch {
      // falls through: not JSON, or JSON of another shape
    }
    return new ApiError('The node answered with an error that cannot be read.', status, 'server_error')
  }
}
