/** One classic message, or one piece of a stream, as JSON fields: of the API path, or of the relay path. */
import { WireError } from '../errors.ts'
import { base64, type Bytes, unbase64 } from '../wire/bytes.ts'

export const TAG_BYTES = 16

/** How AES is used. CBC is all that the original's servers ever send, and is not authenticated. */
export type CipherMode = 'CBC' | 'GCM'

export const ivBytes = (mode: CipherMode): number => (mode === 'CBC' ? 16 : 12)

/** The fields of an envelope on the API path; on the relay path `ciphertext` is called `chat_history`. */
export interface EnvelopeFields {
  readonly ciphertext: string
  readonly iv: string
  readonly cipherkey?: string
  readonly tag?: string
  readonly mode?: CipherMode
}

interface Parts {
  readonly ciphertext: Bytes
  readonly iv: Bytes
  readonly cipherkey?: Bytes | null
  readonly tag?: Bytes | null
  readonly mode?: CipherMode
}

/** Of a stream only the first piece has a `cipherkey`. All raw bytes. */
export class Envelope {
  readonly ciphertext: Bytes
  readonly iv: Bytes
  readonly cipherkey: Bytes | null
  readonly tag: Bytes | null
  readonly mode: CipherMode

  /** Throws WireError for parts that contradict each other. */
  constructor({ ciphertext, iv, cipherkey = null, tag = null, mode = 'CBC' }: Parts) {
    if (iv.length !== ivBytes(mode)) {
      throw new WireError(`The IV of ${mode} has ${ivBytes(mode)} bytes; this one has ${iv.length}.`)
    }
    if (mode === 'CBC' && tag) throw new WireError('A CBC message has no tag.')
    if (mode === 'GCM' && tag?.length !== TAG_BYTES)
      throw new WireError(`A GCM message has a tag of ${TAG_BYTES} bytes.`)
    this.ciphertext = ciphertext
    this.iv = iv
    this.cipherkey = cipherkey
    this.tag = tag
    this.mode = mode
  }

  /**
   * Read the fields of either path; others are passed over. The mode is `mode`, else what the field says in any case, else
   * GCM where there is a tag, else CBC. Hand `mode` in where you rely on GCM, or whoever carries the message may choose.
   *
   * Throws WireError for what is missing, is not strict base64, or contradicts itself.
   */
  static parse(fields: object, mode?: CipherMode): Envelope {
    const values = fields as Readonly<Record<string, unknown>>
    const words = field(values, 'ciphertext')
    const history = field(values, 'chat_history')
    const ciphertext = words ?? history
    if (!ciphertext || (words && history)) {
      throw new WireError('A classic message has either the field ciphertext or the field chat_history.')
    }
    const tag = field(values, 'tag')
    const said = saidMode(values['mode'])
    if (mode && said && mode !== said) throw new WireError(`A ${mode} message is wanted; this one says ${said}.`)
    const iv = field(values, 'iv')
    if (!iv) throw new WireError('A classic message has the field iv.')
    const cipherkey = field(values, 'cipherkey')
    return new Envelope({ ciphertext, iv, cipherkey, tag, mode: mode ?? said ?? (tag ? 'GCM' : 'CBC') })
  }

  /** For the JSON of the API path. The mode is only named where it is not CBC, as in the original. */
  fields(): EnvelopeFields {
    return {
      ciphertext: base64(this.ciphertext),
      iv: base64(this.iv),
      ...(this.cipherkey && { cipherkey: base64(this.cipherkey) }),
      ...(this.tag && { tag: base64(this.tag), mode: this.mode }),
    }
  }

  /** For the JSON of the relay path. Throws TypeError for GCM: that path has no room for tag and mode. */
  relayFields(): { readonly chat_history: string; readonly iv: string; readonly cipherkey?: string } {
    if (this.mode !== 'CBC') throw new TypeError('The classic relay path carries CBC messages only.')
    const { ciphertext, ...fields } = this.fields()
    return { chat_history: ciphertext, ...fields }
  }
}

/** A field's bytes; null when it is absent or null. */
function field(values: Readonly<Record<string, unknown>>, name: string): Bytes | null {
  const value = values[name] ?? null
  if (value === null) return null
  if (typeof value !== 'string') throw new WireError(`The field ${name} of a classic message is base64.`)
  return unbase64(value)
}

function saidMode(value: unknown): CipherMode | null {
  if (value === null || value === undefined) return null
  const mode = typeof value === 'string' ? value.toUpperCase() : ''
  if (mode !== 'CBC' && mode !== 'GCM') throw new WireError('The mode of a classic message is CBC or GCM.')
  return mode
}
