/**
 * The RSA keys of the classic envelope: an AES key is wrapped and unwrapped. `src/tokenplace/sealing/rsa.py` is the other
 * end and has the reasons.
 *
 * RSA encrypts the 44 characters of base64 that spell a 32-byte AES key, not the 32 bytes. The padding is OAEP with SHA-256
 * twice and no label. The original's old JavaScript knew PKCS#1 v1.5 only; WebCrypto has no such thing, so what it sealed
 * does not open here, and asking for it throws NoPkcs1v15.
 *
 * Public keys travel as base64 of the whole PEM text. Accepted are also the PEM text, and base64 of DER (SPKI or PKCS#1).
 */
import { NoPkcs1v15, TooLarge, Unopenable, WireError } from '../errors.ts'
import { base64, type Bytes, hex, text, unbase64, utf8 } from '../wire/bytes.ts'
import { der, DerReader, derInteger, RSA_ENCRYPTION, Tag } from './der.ts'
import { requireCrypto } from './hpke.ts'

export const AES_KEY_BYTES = 32
const MIN_BITS = 2048
const MAX_BITS = 8192
const BITS_STEP = 256
const EXPONENT = Uint8Array.of(1, 0, 1)
const MAX_KEY_TEXT = 16 * 1024
const OAEP = { name: 'RSA-OAEP', hash: 'SHA-256' }
const BEGIN = '-----BEGIN '
const SHAPE = `A classic RSA key has ${MIN_BITS} to ${MAX_BITS} bits in steps of ${BITS_STEP}`

export type CryptoKey = Parameters<typeof crypto.subtle.decrypt>[1]

/** Where PKCS#1 v1.5 could be wished for; true throws NoPkcs1v15. */
export interface Padding {
  readonly pkcs1v15?: boolean
}

export function refusePkcs1v15({ pkcs1v15 }: Padding): void {
  if (pkcs1v15) throw new NoPkcs1v15()
}

/** A public RSA key that classic envelopes are sealed to. */
export class ClassicPublicKey {
  /** SPKI. */
  readonly der: Bytes
  readonly bits: number
  /** Hex of the first 8 bytes of SHA-256 of the DER. */
  readonly keyId: string
  readonly #key: CryptoKey

  private constructor(spki: Bytes, bits: number, keyId: string, key: CryptoKey) {
    this.der = spki
    this.bits = bits
    this.keyId = keyId
    this.#key = key
  }

  /**
   * A key as it travels: base64 of the PEM text, the PEM text, or base64 of DER (SPKI or PKCS#1). White space around and
   * within is passed over. Throws WireError when it is no RSA key of 2048 to 8192 bits in steps of 256 with the exponent
   * 65537.
   */
  static async parse(written: string): Promise<ClassicPublicKey> {
    return ClassicPublicKey.of(publicNumbers(written))
  }

  /** The key with this modulus and exponent. Throws WireError for a shape that classic keys do not have. */
  static async of({ modulus, exponent }: PublicNumbers): Promise<ClassicPublicKey> {
    requireCrypto()
    const bits = 8 * modulus.length - Math.clz32(modulus[0] ?? 0) + 24
    if (bits < MIN_BITS || bits > MAX_BITS || bits % BITS_STEP) throw new WireError(`${SHAPE}; this one has ${bits}.`)
    if (hex(exponent) !== hex(EXPONENT) || !((modulus.at(-1) ?? 0) & 1)) {
      throw new WireError('A classic RSA key has an odd modulus and the public exponent 65537.')
    }
    const numbers = der(Tag.SEQUENCE, derInteger(modulus), derInteger(exponent))
    const spki = der(Tag.SEQUENCE, RSA_ENCRYPTION, der(Tag.BIT_STRING, Uint8Array.of(0), numbers))
    const digest = new Uint8Array(await crypto.subtle.digest('SHA-256', spki))
    const key = await imported('spki', spki, 'encrypt')
    return new ClassicPublicKey(spki, bits, hex(digest.subarray(0, 8)), key)
  }

  /** SPKI as PEM text. */
  get pem(): string {
    const lines = base64(this.der).match(/.{1,64}/g) ?? []
    return ['-----BEGIN PUBLIC KEY-----', ...lines, '-----END PUBLIC KEY-----', ''].join('\n')
  }

  /** The key as it travels: base64 of the PEM text. */
  get wire(): string {
    return base64(utf8(this.pem))
  }

  /** The `cipherkey` for an AES-256 key (32 bytes), as many bytes as the modulus has. */
  async wrap(aesKey: Bytes): Promise<Bytes> {
    return new Uint8Array(await crypto.subtle.encrypt(OAEP, this.#key, utf8(base64(aesKey))))
  }
}

/** A private RSA key that opens classic envelopes. The runtime holds it and gives it to nobody. */
export class ClassicKey {
  readonly public: ClassicPublicKey
  readonly #key: CryptoKey

  private constructor(key: CryptoKey, publicKey: ClassicPublicKey) {
    this.#key = key
    this.public = publicKey
  }

  /** A fresh key. Takes some 100 ms at 2048 bits. Throws WireError unless `bits` is 2048 to 8192 in steps of 256. */
  static async generate(bits = MIN_BITS): Promise<ClassicKey> {
    requireCrypto()
    if (bits < MIN_BITS || bits > MAX_BITS || bits % BITS_STEP) throw new WireError(`${SHAPE}; not ${bits}.`)
    const wanted = { ...OAEP, modulusLength: bits, publicExponent: EXPONENT }
    const { publicKey, privateKey } = await crypto.subtle.generateKey(wanted, false, ['encrypt', 'decrypt'])
    const spki = new Uint8Array(await crypto.subtle.exportKey('spki', publicKey))
    return new ClassicKey(privateKey, await ClassicPublicKey.of(spkiNumbers(spki)))
  }

  /** A private key from unencrypted PEM, PKCS#8 or PKCS#1. Throws WireError when it is no such key, NoPkcs1v15. */
  static async fromPem(pem: string, padding: Padding = {}): Promise<ClassicKey> {
    requireCrypto()
    refusePkcs1v15(padding)
    if (pem.length > MAX_KEY_TEXT) throw new TooLarge(`A key may have ${MAX_KEY_TEXT} characters, not ${pem.length}.`)
    const [label, body] = readPem(pem, 'This is not a private RSA key as unencrypted PEM.')
    if (label !== 'PRIVATE KEY' && label !== 'RSA PRIVATE KEY') throw new WireError('This PEM holds no private key.')
    const version = der(Tag.INTEGER, Uint8Array.of(0))
    const pkcs8 =
      label === 'PRIVATE KEY' ? body : der(Tag.SEQUENCE, version, RSA_ENCRYPTION, der(Tag.OCTET_STRING, body))
    const publicKey = await ClassicPublicKey.of(pkcs8Numbers(pkcs8))
    return new ClassicKey(await imported('pkcs8', pkcs8, 'decrypt'), publicKey)
  }

  /** The AES key (32 bytes) that was wrapped. Throws Unopenable. */
  async unwrap(cipherkey: Bytes): Promise<Bytes> {
    if (8 * cipherkey.length !== this.public.bits) throw new Unopenable()
    try {
      const key = unbase64(text(new Uint8Array(await crypto.subtle.decrypt(OAEP, this.#key, cipherkey))))
      if (key.length === AES_KEY_BYTES) return key
    } catch {
      // not for this key, or no key inside: nobody is told which
    }
    throw new Unopenable()
  }
}

async function imported(format: 'spki' | 'pkcs8', key: Bytes, use: 'encrypt' | 'decrypt'): Promise<CryptoKey> {
  try {
    return await crypto.subtle.importKey(format, key, OAEP, false, [use])
  } catch {
    throw new WireError('The runtime does not take this as an RSA key.')
  }
}

// -- forms -------------------------------------------------------------------------------------------------------------

/** Big-endian. */
export interface PublicNumbers {
  readonly modulus: Bytes
  readonly exponent: Bytes
}

const NOT_A_KEY = 'This is not a public RSA key as PEM, as base64 of PEM or as base64 of DER.'

function publicNumbers(written: string): PublicNumbers {
  if (written.length > MAX_KEY_TEXT) {
    throw new TooLarge(`A key may have ${MAX_KEY_TEXT} characters; this one has ${written.length}.`)
  }
  const trimmed = written.trim()
  if (trimmed.startsWith(BEGIN)) return pemNumbers(trimmed)
  const bytes = unbase64(trimmed.replaceAll(/\s/g, ''))
  if (bytes[0] === Tag.SEQUENCE)
    return new DerReader(bytes).sequence().tag === Tag.SEQUENCE ? spkiNumbers(bytes) : pkcs1Numbers(bytes)
  return pemNumbers(text(bytes))
}

function pemNumbers(pem: string): PublicNumbers {
  const [label, body] = readPem(pem, NOT_A_KEY)
  if (label === 'PUBLIC KEY') return spkiNumbers(body)
  if (label === 'RSA PUBLIC KEY') return pkcs1Numbers(body)
  throw new WireError(NOT_A_KEY)
}

/** The label and the content of one PEM block (RFC 7468). */
function readPem(pem: string, otherwise: string): [string, Bytes] {
  const [, label, body] = /^\s*-----BEGIN ([A-Z ]+)-----\s([A-Za-z0-9+/=\s]+)-----END \1-----\s*$/.exec(pem) ?? []
  if (label === undefined || body === undefined) throw new WireError(otherwise)
  return [label, unbase64(body.replaceAll(/\s/g, ''))]
}

function spkiNumbers(spki: Bytes): PublicNumbers {
  const outer = new DerReader(spki)
  const key = outer.sequence()
  outer.end()
  ofRsa(key)
  const bits = key.value(Tag.BIT_STRING)
  key.end()
  if (bits[0] !== 0) throw new WireError(NOT_A_KEY)
  return pkcs1Numbers(bits.slice(1))
}

function pkcs1Numbers(pkcs1: Bytes): PublicNumbers {
  const outer = new DerReader(pkcs1)
  const key = outer.sequence()
  outer.end()
  const numbers = { modulus: key.integer(), exponent: key.integer() }
  key.end()
  return numbers
}

/** The public half of a private key: version, algorithm, (version, modulus, exponent, …). */
function pkcs8Numbers(pkcs8: Bytes): PublicNumbers {
  const key = new DerReader(pkcs8).sequence()
  key.integer()
  ofRsa(key)
  const inner = new DerReader(key.value(Tag.OCTET_STRING)).sequence()
  inner.integer()
  return { modulus: inner.integer(), exponent: inner.integer() }
}

function ofRsa(key: DerReader): void {
  if (hex(der(Tag.SEQUENCE, key.value(Tag.SEQUENCE))) !== hex(RSA_ENCRYPTION)) {
    throw new WireError('This is a key, but not for RSA.')
  }
}
