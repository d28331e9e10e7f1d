/**
 * The door to the library's HPKE (RFC 9180, base mode, single shot), HKDF-SHA256 and AES-256-GCM.
 *
 * For each primitive the runtime's own is used where it exists, and noble's where it does not: never a weaker suite
 * instead. Without WebCrypto at all nothing is sealed.
 */
import { AEAD_AES_256_GCM, CipherSuite, KDF_HKDF_SHA256 } from 'hpke'
import { InsecureContext, WireError } from '../errors.ts'
import { type Bytes, concat } from '../wire/bytes.ts'
import type { Kem } from '../wire/request.ts'
import { bestPrimitives, kemOver } from './kem.ts'

/** Throws InsecureContext where the runtime hides its cryptography from us. */
export function requireCrypto(): void {
  // Browsers leave `subtle` out on plain http pages, whatever the types say.
  const offered = (globalThis as { crypto?: { subtle?: unknown } }).crypto?.subtle
  if (!offered) throw new InsecureContext()
}

const suites: { -readonly [kem in Kem]?: Promise<CipherSuite> } = {}

/** The suite for `kem`, found once. */
export const suiteFor = (kem: Kem): Promise<CipherSuite> => (suites[kem] ??= findSuite(kem))

async function findSuite(kem: Kem): Promise<CipherSuite> {
  return new CipherSuite<never>(kemOver(await bestPrimitives(), kem) as never, KDF_HKDF_SHA256, AEAD_AES_256_GCM)
}

/** HPKE `enc` and ciphertext for the owner of `publicKey`; `info` is authenticated and not sent. Throws WireError. */
export async function seal(
  kem: Kem,
  publicKey: Bytes,
  info: Bytes,
  plaintext: Bytes,
): Promise<{ enc: Bytes; ciphertext: Bytes }> {
  requireCrypto()
  const suite = await suiteFor(kem)
  try {
    const key = await suite.DeserializePublicKey(publicKey)
    const { encapsulatedSecret, ciphertext } = await suite.Seal(key, plaintext, { info })
    return { enc: concat(encapsulatedSecret), ciphertext: concat(ciphertext) }
  } catch {
    throw new WireError('The node’s sealing key is not a public key of its kind.')
  }
}

let nativeEd25519 = true

/** Whether `signature` over `message` is by the owner of the Ed25519 key `publicKey` (32 bytes). */
export async function verify(publicKey: Bytes, signature: Bytes, message: Bytes): Promise<boolean> {
  requireCrypto()
  if (nativeEd25519) {
    try {
      const key = await crypto.subtle.importKey('raw', publicKey, { name: 'Ed25519' }, false, ['verify'])
      return await crypto.subtle.verify({ name: 'Ed25519' }, key, signature, message)
    } catch (error) {
      if (!(error instanceof Error) || error.name !== 'NotSupportedError') return false
      nativeEd25519 = false
    }
  }
  return (await import('./noble.ts')).verifyEd25519(publicKey, signature, message)
}
