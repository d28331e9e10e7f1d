/** As much of DER (X.690) as RSA keys need: reading strictly, writing canonically. */
import { WireError } from '../errors.ts'
import { type Bytes, concat, unhex } from '../wire/bytes.ts'

export const Tag = {
  INTEGER: 0x02,
  BIT_STRING: 0x03,
  OCTET_STRING: 0x04,
  NULL: 0x05,
  OID: 0x06,
  SEQUENCE: 0x30,
} as const
export type Tag = (typeof Tag)[keyof typeof Tag]

/** `rsaEncryption` (RFC 8017, A.1) with its empty parameters: what both kinds of wrapped keys say of themselves. */
export const RSA_ENCRYPTION = unhex('300d06092a864886f70d0101010500')

const fault = (): WireError => new WireError('This key is not DER.')

/** Reads one value after the other. Everything throws WireError for what is not strict DER. */
export class DerReader {
  readonly #bytes: Bytes
  #at = 0

  constructor(bytes: Bytes) {
    this.#bytes = bytes
  }

  /** The tag of what comes next; undefined at the end. */
  get tag(): number | undefined {
    return this.#bytes[this.#at]
  }

  /** The content of the next value, which must be of this kind. */
  value(tag: Tag): Bytes {
    if (this.tag !== tag) throw fault()
    const [length, from] = this.#length(this.#at + 1)
    if (from + length > this.#bytes.length) throw fault()
    this.#at = from + length
    return this.#bytes.slice(from, this.#at)
  }

  sequence(): DerReader {
    return new DerReader(this.value(Tag.SEQUENCE))
  }

  /** A whole number from 0, big-endian; without leading zeros unless it is 0. */
  integer(): Bytes {
    const bytes = this.value(Tag.INTEGER)
    const [first = 0xff, second] = bytes
    if (first & 0x80) throw fault() // negative, or nothing at all
    if (first !== 0 || second === undefined) return bytes
    if (second < 0x80) throw fault() // longer than it need be
    return bytes.slice(1)
  }

  /** Nothing may follow. */
  end(): void {
    if (this.#at !== this.#bytes.length) throw fault()
  }

  /** A length, and where the content begins. Sizes of up to 65,535 bytes. */
  #length(at: number): [number, number] {
    const first = this.#bytes[at] ?? 0xff
    if (first < 0x80) return [first, at + 1]
    const count = first & 0x7f
    if (count === 0 || count > 2) throw fault()
    let length = 0
    for (let i = 1; i <= count; i++) length = length * 256 + (this.#bytes[at + i] ?? 0)
    if (length < (count === 1 ? 0x80 : 0x100)) throw fault() // longer than it need be
    return [length, at + 1 + count]
  }
}

/** One value. */
export function der(tag: Tag, ...content: readonly Uint8Array[]): Bytes {
  const body = concat(...content)
  const size = body.length
  const length = size < 0x80 ? [size] : size < 0x100 ? [0x81, size] : [0x82, size >> 8, size & 0xff]
  return concat(Uint8Array.of(tag, ...length), body)
}

/** A whole number from its big-endian bytes. */
export const derInteger = (bytes: Uint8Array): Bytes =>
  der(Tag.INTEGER, (bytes[0] ?? 0) & 0x80 ? Uint8Array.of(0) : new Uint8Array(), bytes)
