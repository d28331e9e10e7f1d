/** The node's end of the exchange, for tests only: a client never opens requests and never seals answers. */
import { x25519 } from '@noble/curves/ed25519.js'
import { sha3_256 } from '@noble/hashes/sha3.js'
import { ml_kem768 } from '@noble/post-quantum/ml-kem.js'
import {
  AEAD_AES_256_GCM,
  CipherSuite,
  KDF_HKDF_SHA256,
  KEM_DHKEM_X25519_HKDF_SHA256,
  type Key,
  type KEMFactory,
} from 'hpke'
import { ClockSkew, KeyUnknown, TokenPlaceError } from '../src/errors.ts'
import { answerKeys } from '../src/sealing/exchange.ts'
import { padRecord, unpadRequest } from '../src/sealing/padding.ts'
import { type Bytes, concat, hex, utf8 } from '../src/wire/bytes.ts'
import { CLOCK_SKEW_MS } from '../src/wire/limits.ts'
import { encBytes, HEADER_BYTES, Kem, keyIdOf, parseHeader, type RequestHeader } from '../src/wire/request.ts'
import { RecordKind } from '../src/wire/stream.ts'
import { bytes, type KeyVector } from './vectors.ts'

export interface Opened {
  header: RequestHeader
  body: Bytes
  enc: Bytes
  secret: Bytes
}

class RawKey implements Key {
  readonly algorithm = { name: 'MLKEM768-X25519' }
  readonly extractable = false
  readonly type = 'private'
  readonly raw: Uint8Array
  constructor(raw: Uint8Array) {
    this.raw = raw
  }
}

const never = (): Promise<never> => Promise.reject(new Error('recipients only'))

/** The recipient's half over a private key laid out as the Python node lays it out: ML-KEM seed (64) ‖ X25519 (32). */
const recipient: KEMFactory<RawKey> = () => ({
  id: Kem.X25519_MLKEM768,
  type: 'KEM',
  name: 'MLKEM768-X25519',
  Nsecret: 32,
  Nenc: 1120,
  Npk: 1216,
  Nsk: 96,
  DeserializePrivateKey: (raw) => Promise.resolve(new RawKey(raw)),
  Decap(enc, key) {
    const lattice = ml_kem768.decapsulate(enc.slice(0, 1088), ml_kem768.keygen(key.raw.slice(0, 64)).secretKey)
    const scalar = key.raw.slice(64)
    const curve = x25519.getSharedSecret(scalar, enc.slice(1088))
    const joined = concat(lattice, curve, enc.slice(1088), x25519.getPublicKey(scalar), utf8('\\.//^\\'))
    return Promise.resolve(sha3_256(joined))
  },
  GenerateKeyPair: never,
  DeriveKeyPair: never,
  SerializePrivateKey: never,
  SerializePublicKey: never,
  DeserializePublicKey: never,
  Encap: never,
})

const suite = (kem: Kem): CipherSuite =>
  kem === Kem.X25519
    ? (new CipherSuite(KEM_DHKEM_X25519_HKDF_SHA256, KDF_HKDF_SHA256, AEAD_AES_256_GCM) as CipherSuite)
    : (new CipherSuite(recipient, KDF_HKDF_SHA256, AEAD_AES_256_GCM) as CipherSuite)

export async function openRequest(sealed: Bytes, key: KeyVector): Promise<Opened> {
  const header = parseHeader(sealed)
  if (hex(header.keyId) !== key.key_id || header.kem !== key.kem) throw new KeyUnknown()
  const end = HEADER_BYTES + encBytes(header.kem)
  const enc = sealed.slice(HEADER_BYTES, end)
  let plaintext: Bytes
  try {
    const hpke = suite(key.kem)
    const secretKey = await hpke.DeserializePrivateKey(bytes(key.private), true)
    const publicKey = key.kem === Kem.X25519 ? await hpke.DeserializePublicKey(bytes(key.public)) : undefined
    const recipientKey = publicKey ? { privateKey: secretKey, publicKey } : secretKey
    const info = concat(utf8('tp/2 request\0'), sealed.slice(0, HEADER_BYTES))
    plaintext = concat(await hpke.Open(recipientKey, enc, sealed.slice(end), { info }))
  } catch {
    throw new TokenPlaceError('unopenable', 'The node could not open this request.')
  }
  return { header, body: unpadRequest(plaintext.slice(32)), enc, secret: plaintext.slice(0, 32) }
}

/** The key id and the public half follow from the private one. */
export async function publicOf(key: KeyVector): Promise<{ publicKey: string; keyId: string }> {
  const raw = bytes(key.private)
  const publicKey =
    key.kem === Kem.X25519
      ? concat(x25519.getPublicKey(raw))
      : concat(ml_kem768.keygen(raw.slice(0, 64)).publicKey, x25519.getPublicKey(raw.slice(64)))
  return { publicKey: hex(publicKey), keyId: hex(await keyIdOf(key.kem, publicKey)) }
}

/** Takes each request once, while it is fresh. */
export class ReplayGuard {
  readonly #seen = new Map<string, number>()

  admit(header: RequestHeader, nowMs: number): void {
    if (Math.abs(nowMs - header.timeMs) > CLOCK_SKEW_MS) throw new ClockSkew()
    const id = hex(header.requestId)
    if (this.#seen.has(id)) throw new TokenPlaceError('replayed', 'The node has opened this very request before.')
    this.#seen.set(id, nowMs)
  }
}

/** The records of one answer, as they travel. */
export async function sealAnswer(
  opened: Pick<Opened, 'enc' | 'secret'>,
  nonce: Bytes,
  records: readonly { kind: RecordKind; data: Bytes }[],
): Promise<Bytes[]> {
  const { key, baseNonce } = await answerKeys(opened.enc, nonce, opened.secret)
  const aes = await crypto.subtle.importKey('raw', key, 'AES-GCM', false, ['encrypt'])
  const wire = [record(RecordKind.NONCE, nonce)]
  for (const [number, { kind, data }] of records.entries()) {
    const padded = padRecord(data)
    const additionalData = Buffer.alloc(13)
    additionalData.writeUInt32BE(padded.length + 16, 0)
    additionalData.writeUInt8(kind, 4)
    additionalData.writeBigUInt64BE(BigInt(number), 5)
    const iv = baseNonce.slice()
    const view = new DataView(iv.buffer)
    view.setBigUint64(4, view.getBigUint64(4) ^ BigInt(number))
    const sealed = await crypto.subtle.encrypt({ name: 'AES-GCM', iv, additionalData }, aes, padded)
    wire.push(record(kind, new Uint8Array(sealed)))
  }
  return wire
}

export function record(kind: RecordKind, payload: Bytes): Bytes {
  const prefix = new Uint8Array(5)
  new DataView(prefix.buffer).setUint32(0, payload.length)
  prefix[4] = kind
  return concat(prefix, payload)
}
