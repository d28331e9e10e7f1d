/**
 * The answer on the wire, `application/vnd.tp.stream`: records `u32 length ‖ u8 kind ‖ payload`, one after the other.
 *
 * Kinds below 0x80 are sealed by the node for the client and numbered from 0. Kinds from 0x80 are in the open: NONCE
 * comes from the node just before record 0; NOTICE and OUTCOME are the relay's own words, advice that nothing relies on;
 * CLASSIC carries answers of the original's protocol and has no place in a sealed one.
 */
import { TooLarge, WireError } from '../errors.ts'
import { type Bytes, concat } from './bytes.ts'
import { MAX_RECORD } from './limits.ts'

export const STREAM_TYPE = 'application/vnd.tp.stream'
export const NONCE_BYTES = 32
const PREFIX_BYTES = 5

export const RecordKind = {
  HEAD: 0,
  DATA: 1,
  FINAL: 2,
  ABORT: 3,
  NONCE: 0x80,
  NOTICE: 0x81,
  OUTCOME: 0x82,
  CLASSIC: 0x83,
} as const
export type RecordKind = (typeof RecordKind)[keyof typeof RecordKind]

const KINDS: ReadonlySet<number> = new Set(Object.values(RecordKind))
const isKind = (value: number): value is RecordKind => KINDS.has(value)

/** Whether only the client can open it. */
export const isSealed = (kind: RecordKind): boolean => kind < 0x80

/** One record as it travels; `payload` is ciphertext for the sealed kinds. `size` is what it takes on the wire. */
export interface StreamRecord {
  readonly kind: RecordKind
  readonly payload: Bytes
}

export const recordSize = (record: StreamRecord): number => PREFIX_BYTES + record.payload.length

/** Cuts a byte stream into records, however the bytes arrive: the same bytes give the same records at any cut. */
export class RecordSplitter {
  #rest: Bytes = new Uint8Array()
  #fault: WireError | null = null

  /**
   * Take more bytes, give the records that are now whole.
   *
   * Throws WireError or TooLarge for bytes that are no record, as soon as no whole record is left to give before them;
   * from then on every call throws.
   */
  feed(chunk: Uint8Array): StreamRecord[] {
    this.finish()
    const bytes = this.#rest.length ? concat(this.#rest, chunk) : concat(chunk)
    const view = new DataView(bytes.buffer)
    const records: StreamRecord[] = []
    let at = 0
    while (bytes.length - at >= PREFIX_BYTES) {
      const length = view.getUint32(at)
      const kind = view.getUint8(at + 4)
      if (length > MAX_RECORD) {
        this.#fault = new TooLarge(`A record may have ${MAX_RECORD} bytes; this one claims ${length}.`)
        break
      }
      if (!isKind(kind)) {
        this.#fault = new WireError(`Record kind ${kind} is not one of ours.`)
        break
      }
      const end = at + PREFIX_BYTES + length
      if (end > bytes.length) break
      records.push({ kind, payload: bytes.slice(at + PREFIX_BYTES, end) })
      at = end
    }
    this.#rest = this.#fault ? new Uint8Array() : bytes.slice(at)
    if (!records.length) this.finish()
    return records
  }

  /** Say that no more bytes will come. Throws what the last `feed` found behind the records it gave. */
  finish(): void {
    if (this.#fault) throw this.#fault
  }
}
