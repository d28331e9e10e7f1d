/**
 * The primitives that some runtimes lack, in JavaScript (noble). Loaded only where WebCrypto cannot do the same: the
 * strength is equal, the speed is not.
 */
import { ed25519, x25519 } from '@noble/curves/ed25519.js'
import { ml_kem768 } from '@noble/post-quantum/ml-kem.js'
import type { Primitives } from './kem.ts'

export const primitives: Omit<Primitives, 'sha3'> = {
  encapsulate(publicKey) {
    const { sharedSecret, cipherText } = ml_kem768.encapsulate(publicKey)
    return Promise.resolve({ secret: sharedSecret, ciphertext: cipherText })
  },
  agree(publicKey) {
    const ours = x25519.keygen()
    return Promise.resolve({ secret: x25519.getSharedSecret(ours.secretKey, publicKey), publicKey: ours.publicKey })
  },
}

/** Whether `signature` over `message` is by the owner of the Ed25519 key `publicKey`. */
export function verifyEd25519(publicKey: Uint8Array, signature: Uint8Array, message: Uint8Array): boolean {
  try {
    return ed25519.verify(signature, message, publicKey, { zip215: false })
  } catch {
    return false
  }
}
