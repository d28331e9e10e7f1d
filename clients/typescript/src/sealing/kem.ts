/**
 * The sender's half of our two key encapsulations for `hpke`, over whichever ML-KEM and X25519 there is.
 *
 * `hpke` has both KEMs, but its hybrid asks for SHA3-256 in WebCrypto, which Chromium has not, and none of its KEMs can
 * take one half from the runtime and the other from noble. So each primitive is native wherever it can be, by itself; it
 * matters most for the two key agreements, where a secret could leak through timing. The vectors and the Python node hold
 * this to the standards.
 *
 *     X25519 (RFC 9180, 4.1)     shared secret = ExtractAndExpand(X25519 secret, enc ‖ node's key), enc = our X25519 key
 *     MLKEM768-X25519 (0x647a,   shared secret = SHA3-256(ML-KEM secret ‖ X25519 secret ‖ our X25519 key ‖
 *     draft-ietf-hpke-pq)          node's X25519 key ‖ label), enc = ML-KEM ciphertext (1088) ‖ our X25519 key (32)
 */
import { KDF_HKDF_SHA256, type Key, type KEMFactory, LabeledExpand, LabeledExtract, NotSupportedError } from 'hpke'
import { type Bytes, concat, utf8 } from '../wire/bytes.ts'
import { Kem } from '../wire/request.ts'

const MLKEM_PUBLIC = 1184
const LABEL = utf8('\\.//^\\')
const X25519 = { name: 'X25519' }
const MLKEM = { name: 'ML-KEM-768' }

/** WebCrypto's newer half, where the runtime has it (WICG, "Modern Algorithms in the Web Cryptography API"). */
interface Encapsulating {
  importKey(
    format: 'raw-public',
    key: Bytes,
    algorithm: object,
    extractable: boolean,
    usages: string[],
  ): Promise<object>
  encapsulateBits(algorithm: object, key: object): Promise<{ sharedKey: ArrayBuffer; ciphertext: ArrayBuffer }>
}

/** The primitives under the KEMs. */
export interface Primitives {
  /** ML-KEM-768 with the owner of a public key. */
  encapsulate(publicKey: Bytes): Promise<{ secret: Uint8Array; ciphertext: Uint8Array }>
  /** X25519 between the owner of a public key and a fresh key of ours, whose public half is given. */
  agree(publicKey: Bytes): Promise<{ secret: Uint8Array; publicKey: Uint8Array }>
  sha3(data: Bytes): Promise<Uint8Array>
}

const native: Primitives = {
  async encapsulate(publicKey) {
    const subtle = crypto.subtle as unknown as Encapsulating
    const theirs = await subtle.importKey('raw-public', publicKey, MLKEM, true, ['encapsulateBits'])
    const { sharedKey, ciphertext } = await subtle.encapsulateBits(MLKEM, theirs)
    return { secret: new Uint8Array(sharedKey), ciphertext: new Uint8Array(ciphertext) }
  },
  async agree(publicKey) {
    const { subtle } = crypto
    const [theirs, ours] = await Promise.all([
      subtle.importKey('raw', publicKey, X25519, true, []),
      subtle.generateKey(X25519, true, ['deriveBits']),
    ])
    if (!('publicKey' in ours)) throw new NotSupportedError(X25519.name)
    const secret = await subtle.deriveBits({ ...X25519, public: theirs }, ours.privateKey, 256)
    return {
      secret: new Uint8Array(secret),
      publicKey: new Uint8Array(await subtle.exportKey('raw', ours.publicKey)),
    }
  },
  sha3: async (data) => new Uint8Array(await crypto.subtle.digest('SHA3-256', data)),
}

interface RawKey extends Key {
  readonly raw: Bytes
}

type Encap = (publicKey: Bytes) => Promise<{ shared_secret: Uint8Array; enc: Bytes }>

/** A KEM for `hpke`'s CipherSuite that only encapsulates, since this end only seals. */
function sender(id: Kem, name: string, Nenc: number, Npk: number, encap: Encap): KEMFactory<RawKey> {
  const never = (): Promise<never> => Promise.reject(new NotSupportedError(name))
  const key = { algorithm: { name }, extractable: true, type: 'public' }
  return () => ({
    id,
    type: 'KEM',
    name,
    Nsecret: 32,
    Nenc,
    Npk,
    Nsk: 32,
    DeserializePublicKey: (raw) => Promise.resolve({ ...key, raw: concat(raw) }),
    SerializePublicKey: ({ raw }) => Promise.resolve(raw),
    Encap: ({ raw }) => encap(raw),
    GenerateKeyPair: never,
    DeriveKeyPair: never,
    SerializePrivateKey: never,
    DeserializePrivateKey: never,
    Decap: never,
  })
}

/** The KEM of that number. */
export function kemOver({ encapsulate, agree, sha3 }: Primitives, kem: Kem): KEMFactory<RawKey> {
  if (kem === Kem.X25519_MLKEM768) {
    return sender(kem, 'MLKEM768-X25519', 1120, 1216, async (node) => {
      const curveKey = node.slice(MLKEM_PUBLIC)
      const [lattice, curve] = await Promise.all([encapsulate(node.slice(0, MLKEM_PUBLIC)), agree(curveKey)])
      return {
        shared_secret: await sha3(concat(lattice.secret, curve.secret, curve.publicKey, curveKey, LABEL)),
        enc: concat(lattice.ciphertext, curve.publicKey),
      }
    })
  }
  return sender(kem, 'DHKEM(X25519, HKDF-SHA256)', 32, 32, async (node) => {
    const { secret, publicKey } = await agree(node)
    const kdf = KDF_HKDF_SHA256()
    const suite = concat(utf8('KEM'), Uint8Array.of(0, kem))
    const prk = await LabeledExtract(kdf, suite, new Uint8Array(), utf8('eae_prk'), secret)
    const context = concat(publicKey, node)
    return {
      shared_secret: await LabeledExpand(kdf, suite, prk, utf8('shared_secret'), context, 32),
      enc: concat(publicKey),
    }
  })
}

/** Native where the runtime can, decided once and for each primitive by trying it. */
export async function bestPrimitives(): Promise<Primitives> {
  const tries: Promise<unknown>[] = [
    crypto.subtle.generateKey(MLKEM, false, ['encapsulateBits', 'decapsulateBits'] as never),
    crypto.subtle.generateKey(X25519, false, ['deriveBits']),
    native.sha3(new Uint8Array()),
  ]
  const [mlkem, x25519, sha3] = (await Promise.allSettled(tries)).map(({ status }) => status === 'fulfilled')
  const noble = mlkem && x25519 ? native : (await import('./noble.ts')).primitives
  return {
    encapsulate: (mlkem ? native : noble).encapsulate,
    agree: (x25519 ? native : noble).agree,
    sha3: sha3 ? native.sha3 : (await import('./sha3.ts')).sha3,
  }
}
