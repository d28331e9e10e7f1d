/**
 * How an identity says something that anybody may check: `base64url(body) "." base64url(signature)`, the body JSON, the
 * signature Ed25519 over `prefix ‖ body`. The bytes that were signed travel unchanged, so nobody needs canonical JSON.
 * Reading it proves nothing; `sealing/identity.ts` does.
 */
import { TooLarge, WireError } from '../errors.ts'
import { type Bytes, concat, isObject, object, unbase64url, utf8 } from './bytes.ts'
import { type NodeId, nodeIdOf } from './ids.ts'
import { MAX_CONTROL } from './limits.ts'

const IDENTITY_BYTES = 32
const SIGNATURE_BYTES = 64

/** A statement as it travels: parsed, not believed. */
export interface Signed {
  /** Whose identity it names. */
  readonly by: NodeId
  readonly identity: Bytes
  /** What that identity signed, prefix and all. */
  readonly input: Bytes
  readonly signature: Bytes
  readonly fields: Fields
}

/** Read a `what` ("card") whose field `owner` ("node") has the id of its identity. Throws WireError. */
export async function parseSigned(what: string, owner: string, text: string): Promise<Signed> {
  if (text.length > MAX_CONTROL)
    throw new TooLarge(`A ${what} may have ${MAX_CONTROL} characters, not ${text.length}.`)
  const [body = '', ...tail] = text.split('.')
  const signed = unbase64url(body)
  const signature = unbase64url(tail.join('.'))
  const fields: Fields = new Fields(what, object(signed))
  const identity = unbase64url(fields.string('identity'))
  const by = await nodeIdOf(identity)
  fields.check('signature', signature.length === SIGNATURE_BYTES)
  fields.check('v', fields.raw['v'] === 2)
  fields.check(owner, identity.length === IDENTITY_BYTES && fields.raw[owner] === by)
  return { by, identity, input: concat(utf8(`tp/2 ${what}\0`), signed), signature, fields }
}

/** The fields of a body; each reader throws WireError for what is not there or of another kind. */
export class Fields {
  readonly #what: string
  readonly raw: Record<string, unknown>

  constructor(what: string, raw: Record<string, unknown>) {
    this.#what = what
    this.raw = raw
  }

  /** Throws WireError unless it `holds`. */
  check(field: string, holds: boolean): asserts holds {
    if (!holds) throw new WireError(`This is not what a ${this.#what} says (${field}).`)
  }

  string(field: string): string {
    const value = this.raw[field]
    this.check(field, typeof value === 'string')
    return value
  }

  /** A whole number from 0. */
  whole(field: string): number {
    const value = this.raw[field]
    this.check(field, typeof value === 'number' && Number.isSafeInteger(value) && value >= 0)
    return value
  }

  /** Up to `most` texts of 1 to 256 characters. */
  names(field: string, most = Infinity): string[] {
    const value = this.raw[field]
    this.check(field, Array.isArray(value) && value.length <= most && value.every(isName))
    return value as string[]
  }

  /** A text of 1 to 256 characters. */
  name(field: string): string {
    const value = this.raw[field]
    this.check(field, isName(value))
    return value
  }

  /** Objects, with their own readers. */
  objects(field: string): Fields[] {
    const value = this.raw[field]
    this.check(field, Array.isArray(value) && value.every(isObject))
    return (value as Record<string, unknown>[]).map((each) => new Fields(this.#what, each))
  }
}

const isName = (value: unknown): value is string =>
  typeof value === 'string' && value.length > 0 && value.length <= 256
