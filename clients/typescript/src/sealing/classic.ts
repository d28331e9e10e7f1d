/**
 * The classic envelope: how the original token.place sealed its messages, for ends that know no other.
 *
 *     const envelope = await sealClassic(words, await ClassicPublicKey.parse(theirKey))    at either end
 *     const words = await openClassic(Envelope.parse(fields), ourKey)                      at the other
 *     ClassicStreamSealer, ClassicStreamOpener                                             an answer in pieces
 *
 * A fresh AES-256 key per message (per stream: one, sent with the first piece) is wrapped by RSA into `cipherkey`; the words
 * are under AES-256-CBC with PKCS#7 or AES-256-GCM.
 *
 * Use the sealed exchange (`exchange.ts`) wherever both ends know it. What the classic envelope cannot do, here or in the
 * original: CBC is not authenticated, so whoever carries a message can change it unseen, and every answer to "did this
 * open?" tells them something; nothing says who asked; the pieces of a stream are not counted, so that one missing, or out
 * of its place, is not noticed; there is no forward secrecy beyond the life of the RSA key.
 */
import { BadRecord, TooLarge, TokenPlaceError, Unopenable, WireError } from '../errors.ts'
import { base64, type Bytes, concat } from '../wire/bytes.ts'
import { type CipherMode, Envelope, ivBytes, TAG_BYTES } from './envelope.ts'
import {
  AES_KEY_BYTES,
  type ClassicKey,
  type ClassicPublicKey,
  type CryptoKey,
  type Padding,
  refusePkcs1v15,
} from './rsa.ts'

/** Pieces of one stream: each IV is remembered to refuse it the second time, and no answer has as many pieces. */
export const MAX_PIECES = 65_536

export interface SealOptions extends Padding {
  readonly mode?: CipherMode
  /** Authenticated and not sent; needs GCM. */
  readonly associatedData?: Bytes
}

export interface OpenOptions {
  readonly associatedData?: Bytes
}

const NONE: Bytes = new Uint8Array()

/** Seal bytes to a key, under an AES key of its own. Throws TypeError for associated data under CBC, NoPkcs1v15. */
export async function sealClassic(
  plaintext: Bytes,
  to: ClassicPublicKey,
  options: SealOptions = {},
): Promise<Envelope> {
  return (await ClassicStreamSealer.to(to, options)).seal(plaintext)
}

/**
 * The plaintext of a message. With CBC it may have been altered; see above.
 *
 * Throws WireError when there is no cipherkey, and Unopenable, which never says why, when it was altered, sealed to another
 * key or with other associated data, or in CBC while associated data is expected.
 */
export function openClassic(envelope: Envelope, key: ClassicKey, options: OpenOptions = {}): Promise<Bytes> {
  return new ClassicStreamOpener(key, options).open(envelope)
}

/** One end of a stream of pieces: one AES key, wrapped into the first piece, and a fresh IV for each. */
export class ClassicStreamSealer {
  readonly mode: CipherMode
  readonly #key: CryptoKey
  readonly #associatedData: Bytes
  readonly #ivs = new Set<string>()
  #cipherkey: Bytes | null

  private constructor(mode: CipherMode, key: CryptoKey, cipherkey: Bytes, associatedData: Bytes) {
    this.mode = mode
    this.#key = key
    this.#cipherkey = cipherkey
    this.#associatedData = associatedData
  }

  /** Begin a stream, as `sealClassic` does; the associated data goes for every piece. */
  static async to(to: ClassicPublicKey, options: SealOptions = {}): Promise<ClassicStreamSealer> {
    const { mode = 'CBC', associatedData = NONE } = options
    refusePkcs1v15(options)
    if (associatedData.length && mode === 'CBC') {
      throw new TypeError('CBC authenticates nothing; associated data needs GCM.')
    }
    const aesKey = crypto.getRandomValues(new Uint8Array(AES_KEY_BYTES))
    const [key, cipherkey] = await Promise.all([aes(aesKey, mode), to.wrap(aesKey)])
    return new ClassicStreamSealer(mode, key, cipherkey, associatedData)
  }

  /** The next piece. Throws TooLarge after MAX_PIECES. One call at a time. */
  async seal(plaintext: Bytes): Promise<Envelope> {
    if (this.#ivs.size >= MAX_PIECES) throw new TooLarge(`A stream has ${MAX_PIECES} pieces at most; begin another.`)
    const iv = crypto.getRandomValues(new Uint8Array(ivBytes(this.mode)))
    if (this.#ivs.has(base64(iv))) throw new TypeError('The source of randomness repeats itself.')
    this.#ivs.add(base64(iv))
    const cipherkey = this.#cipherkey
    this.#cipherkey = null
    const sealed = await crypto.subtle.encrypt(parameters(this.mode, iv, this.#associatedData), this.#key, plaintext)
    const bytes = new Uint8Array(sealed)
    if (this.mode === 'CBC') return new Envelope({ ciphertext: bytes, iv, cipherkey })
    const ciphertext = bytes.slice(0, -TAG_BYTES)
    return new Envelope({ ciphertext, iv, cipherkey, tag: bytes.slice(-TAG_BYTES), mode: 'GCM' })
  }
}

/** The other end of a stream of pieces. Its errors stick: after one, everything throws BadRecord. */
export class ClassicStreamOpener {
  readonly #rsa: ClassicKey
  readonly #associatedData: Bytes
  readonly #ivs = new Set<string>()
  #key: CryptoKey | null = null
  #mode: CipherMode = 'CBC'
  #broken = false

  constructor(key: ClassicKey, { associatedData = NONE }: OpenOptions = {}) {
    this.#rsa = key
    this.#associatedData = associatedData
  }

  /**
   * The plaintext of the next piece. Throws for the first piece WireError when it brings no cipherkey and Unopenable when it
   * does not open; for later ones BadRecord when one came before, brings a cipherkey, is in another mode, or does not open.
   * One call at a time.
   */
  async open(envelope: Envelope): Promise<Bytes> {
    if (this.#broken) throw new BadRecord('A piece of this stream was bad; nothing after it can be trusted.')
    this.#broken = true // until this piece has opened
    const plaintext = this.#key ? await this.#next(this.#key, envelope) : await this.#first(envelope)
    this.#ivs.add(base64(envelope.iv))
    this.#broken = false
    return plaintext
  }

  async #first(envelope: Envelope): Promise<Bytes> {
    if (!envelope.cipherkey) {
      throw new WireError('A classic message, and the first piece of a stream, has the field cipherkey.')
    }
    if (this.#associatedData.length && envelope.mode === 'CBC') throw new Unopenable()
    this.#mode = envelope.mode
    this.#key = await aes(await this.#rsa.unwrap(envelope.cipherkey), envelope.mode)
    return this.#decrypt(this.#key, envelope, () => new Unopenable())
  }

  #next(key: CryptoKey, envelope: Envelope): Promise<Bytes> {
    if (envelope.cipherkey) bad('A later piece of the stream brings a key again')
    if (envelope.mode !== this.#mode) bad('A later piece of the stream is in another mode')
    if (this.#ivs.has(base64(envelope.iv))) bad('A piece of the stream came twice')
    if (this.#ivs.size >= MAX_PIECES) bad(`The stream has more than ${MAX_PIECES} pieces`)
    return this.#decrypt(
      key,
      envelope,
      () => new BadRecord('A piece of the stream does not open; nothing after it can be trusted.'),
    )
  }

  async #decrypt(key: CryptoKey, envelope: Envelope, problem: () => TokenPlaceError): Promise<Bytes> {
    const { mode, iv, ciphertext, tag } = envelope
    try {
      const sealed = concat(ciphertext, tag ?? NONE)
      return new Uint8Array(await crypto.subtle.decrypt(parameters(mode, iv, this.#associatedData), key, sealed))
    } catch {
      throw problem()
    }
  }
}

function bad(why: string): never {
  throw new BadRecord(`${why}; nothing after it can be trusted.`)
}

const aes = (key: Bytes, mode: CipherMode): Promise<CryptoKey> =>
  crypto.subtle.importKey('raw', key, `AES-${mode}`, false, ['encrypt', 'decrypt'])

const parameters = (mode: CipherMode, iv: Bytes, additionalData: Bytes) =>
  mode === 'CBC' ? { name: 'AES-CBC', iv } : { name: 'AES-GCM', iv, additionalData, tagLength: 8 * TAG_BYTES }
