/**
 * The open header of a sealed request, `application/vnd.tp.request`: what the relay can read. Big-endian, 40 bytes:
 *
 *     0        1        2                 10       12       14       16                  32                40
 *     ┌────────┬────────┬─────────────────┬────────┬────────┬────────┬───────────────────┬─────────────────┐
 *     │version │ flags  │ key id (8)      │ kem    │ kdf    │ aead   │ request id (16)   │ unix ms (8)     │
 *     └────────┴────────┴─────────────────┴────────┴────────┴────────┴───────────────────┴─────────────────┘
 *     then HPKE enc ‖ ciphertext
 */
import { TooLarge, WireError } from '../errors.ts'
import { type Bytes, concat } from './bytes.ts'
import { MAX_REQUEST } from './limits.ts'

export const REQUEST_TYPE = 'application/vnd.tp.request'
export const HEADER_BYTES = 40
const VERSION = 2
const KDF_HKDF_SHA256 = 0x0001
const AEAD_AES_256_GCM = 0x0002
const TAG_BYTES = 16

/** HPKE KEM identifiers (IANA HPKE registry). */
export const Kem = { X25519: 0x0020, X25519_MLKEM768: 0x647a } as const
export type Kem = (typeof Kem)[keyof typeof Kem]

export const isKem = (value: unknown): value is Kem => value === Kem.X25519 || value === Kem.X25519_MLKEM768

/** Length of HPKE's `enc`. */
export const encBytes = (kem: Kem): number => (kem === Kem.X25519 ? 32 : 1120)

/** How a request names the key it is sealed to: SHA-256(kem id ‖ public key)[:8]. */
export async function keyIdOf(kem: Kem, publicKey: Uint8Array): Promise<Bytes> {
  const named = concat(Uint8Array.of(kem >> 8, kem & 0xff), publicKey)
  return new Uint8Array(await crypto.subtle.digest('SHA-256', named)).slice(0, 8)
}

/** The readable part of a sealed request. */
export interface RequestHeader {
  readonly keyId: Bytes
  readonly kem: Kem
  readonly requestId: Bytes
  readonly timeMs: number
}

export function packHeader(header: RequestHeader): Bytes {
  const packed = new Uint8Array(HEADER_BYTES)
  const view = new DataView(packed.buffer)
  view.setUint8(0, VERSION)
  packed.set(header.keyId, 2)
  view.setUint16(10, header.kem)
  view.setUint16(12, KDF_HKDF_SHA256)
  view.setUint16(14, AEAD_AES_256_GCM)
  packed.set(header.requestId, 16)
  view.setBigUint64(32, BigInt(header.timeMs))
  return packed
}

/** Read the header of a sealed request, and refuse what no node could open. Throws TooLarge, WireError. */
export function parseHeader(sealed: Bytes): RequestHeader {
  const size = sealed.length
  if (size > MAX_REQUEST) throw new TooLarge(`A request may have ${MAX_REQUEST} bytes; this one has ${size}.`)
  if (size < HEADER_BYTES) throw new WireError(`A sealed request has at least ${HEADER_BYTES} bytes, not ${size}.`)
  const view = new DataView(sealed.buffer, sealed.byteOffset, size)
  const kem = view.getUint16(10)
  if (view.getUint8(0) !== VERSION) throw new WireError(`This end speaks version ${VERSION} of the sealed request.`)
  if (view.getUint8(1) !== 0) throw new WireError('Flags mean nothing in this version.')
  if (!isKem(kem)) throw new WireError('This key encapsulation is not one of ours.')
  if (view.getUint16(12) !== KDF_HKDF_SHA256) throw new WireError('This key derivation is not HKDF-SHA256.')
  if (view.getUint16(14) !== AEAD_AES_256_GCM) throw new WireError('This cipher is not AES-256-GCM.')
  if (size < HEADER_BYTES + encBytes(kem) + TAG_BYTES) throw new WireError('The sealed request is cut short.')
  return {
    keyId: sealed.slice(2, 10),
    kem,
    requestId: sealed.slice(16, 32),
    timeMs: Number(view.getBigUint64(32)),
  }
}
