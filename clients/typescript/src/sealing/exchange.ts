/**
 * The client's half of the sealed exchange "tp/2": a request that only one node can open, an answer that only the client
 * can open. `src/tokenplace/sealing/exchange.py` describes the whole.
 *
 *     const { sealed, pending } = await sealRequest(body, key, nowMs)
 *     const opener = await pending.accept(nonce)
 *     await opener.open(record)     // each sealed record, in order
 *     opener.finish()
 *
 * Each step's result is the only thing that can take the next one.
 */
import { BadRecord, TokenPlaceError, TooLarge, Truncated, WireError } from '../errors.ts'
import { base64url, type Bytes, concat, unbase64url, utf8 } from '../wire/bytes.ts'
import type { SealingKey } from '../wire/card.ts'
import { type JobId, jobIdOf } from '../wire/ids.ts'
import { MAX_REQUEST } from '../wire/limits.ts'
import { HEADER_BYTES, keyIdOf, packHeader } from '../wire/request.ts'
import { NONCE_BYTES, RecordKind, type StreamRecord } from '../wire/stream.ts'
import { requireCrypto, seal } from './hpke.ts'
import { padRequest, requestRoom, unpadRecord } from './padding.ts'

const INFO_PREFIX = utf8('tp/2 request\0')
const SECRET_BYTES = 32
const REQUEST_ID_BYTES = 16
const TAG_BYTES = 16
const LONGEST_ENC = 1120

/** The most bytes one request body may have: 8 MiB less the four of its length. */
export const MAX_BODY = requestRoom(MAX_REQUEST - HEADER_BYTES - LONGEST_ENC - TAG_BYTES - SECRET_BYTES)

/** What may follow a HEAD, a DATA, a FINAL, an ABORT. */
const START: readonly RecordKind[] = [RecordKind.HEAD, RecordKind.ABORT]
const GOING_ON: readonly RecordKind[] = [RecordKind.DATA, RecordKind.FINAL, RecordKind.ABORT]
const END: readonly RecordKind[] = []

export interface SealedRequest {
  readonly sealed: Bytes
  readonly pending: PendingAnswer
}

/** Seal `body` to a key of a card that was verified, picked by `chooseKey`. Throws TooLarge, WireError, InsecureContext. */
export async function sealRequest(body: Bytes, key: SealingKey, nowMs: number): Promise<SealedRequest> {
  requireCrypto()
  if (body.length > MAX_BODY)
    throw new TooLarge(`A request may carry ${MAX_BODY} bytes; this one has ${body.length}.`)
  const requestId = crypto.getRandomValues(new Uint8Array(REQUEST_ID_BYTES))
  const secret = crypto.getRandomValues(new Uint8Array(SECRET_BYTES))
  const keyId = await keyIdOf(key.kem, key.publicKey)
  const header = packHeader({ keyId, kem: key.kem, requestId, timeMs: nowMs })
  const { enc, ciphertext } = await seal(
    key.kem,
    key.publicKey,
    concat(INFO_PREFIX, header),
    concat(secret, padRequest(body)),
  )
  return { sealed: concat(header, enc, ciphertext), pending: new PendingAnswer(jobIdOf(requestId), enc, secret) }
}

/** What the client keeps of its request: all that can open the answer, and nothing else can. */
export class PendingAnswer {
  readonly job: JobId
  readonly #enc: Bytes
  readonly #secret: Bytes

  constructor(job: JobId, enc: Bytes, secret: Bytes) {
    this.job = job
    this.#enc = enc
    this.#secret = secret
  }

  /** Begin to read the answer whose NONCE record carried `nonce`; a false one gives an opener that opens nothing. */
  async accept(nonce: Bytes): Promise<RecordOpener> {
    const { key, baseNonce } = await answerKeys(this.#enc, nonce, this.#secret)
    return new RecordOpener(await crypto.subtle.importKey('raw', key, 'AES-GCM', false, ['decrypt']), baseNonce)
  }

  /** As text that a program may keep to open the answer later. It is as secret as the answer. */
  save(): string {
    return `${this.job}.${base64url(this.#enc)}.${base64url(this.#secret)}`
  }

  /** The reverse of `save`. Throws WireError. */
  static restore(saved: string): PendingAnswer {
    const [job, enc, secret] = saved.split('.')
    if (!job || !enc || !secret || !/^[0-9a-f]{32}$/.test(job)) throw new WireError('This is no saved request.')
    return new PendingAnswer(job as JobId, unbase64url(enc), unbase64url(secret))
  }
}

/** The answer's AES-256 key (32) and base nonce (12), RFC 9458 section 4.4. Throws WireError for a bad nonce. */
export async function answerKeys(enc: Bytes, nonce: Bytes, secret: Bytes): Promise<{ key: Bytes; baseNonce: Bytes }> {
  if (nonce.length !== NONCE_BYTES) throw new WireError(`An answer’s nonce has ${NONCE_BYTES} bytes.`)
  const salt = concat(enc, nonce)
  const ikm = await crypto.subtle.importKey('raw', secret, 'HKDF', false, ['deriveBits'])
  const expand = async (label: string, bytes: number): Promise<Bytes> => {
    const parameters = { name: 'HKDF', hash: 'SHA-256', salt, info: utf8(label) }
    return new Uint8Array(await crypto.subtle.deriveBits(parameters, ikm, 8 * bytes))
  }
  const [key, baseNonce] = await Promise.all([expand('key', 32), expand('nonce', 12)])
  return { key, baseNonce }
}

type AesKey = Parameters<typeof crypto.subtle.decrypt>[1]

/**
 * Opens the records of one answer in their order, up to its authenticated end. Its errors stick: once a record was bad,
 * everything after throws BadRecord, whatever it is.
 */
export class RecordOpener {
  readonly #key: AesKey
  readonly #baseNonce: Bytes
  #number = 0
  #legal = START
  #broken: string | null = null

  constructor(key: AesKey, baseNonce: Bytes) {
    this.#key = key
    this.#baseNonce = baseNonce
  }

  /** The number of the record to come: where a resumed stream goes on. */
  get nextNumber(): number {
    return this.#number
  }

  /** Whether FINAL or ABORT was opened. */
  get ended(): boolean {
    return this.#legal === END
  }

  /**
   * The data of the next sealed record. Throws BadRecord when it is not the record that the node sealed at this place, or
   * comes after the end. One call at a time.
   */
  async open({ kind, payload }: StreamRecord): Promise<Bytes> {
    if (this.#broken !== null) throw new BadRecord(this.#broken)
    const number = this.#number
    if (!this.#legal.includes(kind)) this.#break(`Record ${number} of the answer may not be of kind ${kind}`)
    let data: Bytes
    try {
      const padded = await crypto.subtle.decrypt(
        { name: 'AES-GCM', iv: this.#nonce(number), additionalData: additional(payload.length, kind, number) },
        this.#key,
        payload,
      )
      data = unpadRecord(new Uint8Array(padded))
    } catch (error) {
      this.#break(
        error instanceof TokenPlaceError
          ? `Record ${number} of the answer is wrongly padded`
          : `Record ${number} of the answer was altered or moved`,
      )
    }
    this.#number = number + 1
    this.#legal = kind === RecordKind.FINAL || kind === RecordKind.ABORT ? END : GOING_ON
    return data
  }

  /** Say that no more will come. Throws Truncated unless the end was opened, BadRecord if a record was bad. */
  finish(): void {
    if (this.#broken !== null) throw new BadRecord(this.#broken)
    if (!this.ended) throw new Truncated()
  }

  /** base nonce ⊕ number, aligned right. */
  #nonce(number: number): Bytes {
    const nonce = this.#baseNonce.slice()
    const view = new DataView(nonce.buffer)
    view.setBigUint64(4, view.getBigUint64(4) ^ BigInt(number))
    return nonce
  }

  #break(why: string): never {
    this.#broken = `${why}; nothing after it can be trusted.`
    throw new BadRecord(this.#broken)
  }
}

/** u32 payload length ‖ u8 kind ‖ u64 number. */
function additional(length: number, kind: RecordKind, number: number): Bytes {
  const bytes = new Uint8Array(13)
  const view = new DataView(bytes.buffer)
  view.setUint32(0, length)
  view.setUint8(4, kind)
  view.setBigUint64(5, BigInt(number))
  return bytes
}
