/** spec/vectors, as spec/README.md describes it. */
import { readFileSync } from 'node:fs'
import { TokenPlaceError } from '../src/errors.ts'
import type { Kem } from '../src/wire/request.ts'
import type { RecordKind } from '../src/wire/stream.ts'

interface Fault {
  name: string
  expect: string
}
interface RequestFault extends Fault {
  base?: string
  bits_from?: number
  bits_to?: number
  keep?: number
  append?: string
  extend_to?: number
  sealed?: string
}
export interface KeyVector {
  name: string
  kem: Kem
  private: string
  public: string
  key_id: string
  not_before_ms: number
  not_after_ms: number
}
export interface RequestVector {
  name: string
  key: string
  request_id: string
  time_ms: number
  response_secret: string
  body: string
  padded_size: number
  header: string
  enc: string
  sealed: string
}
export interface AnswerVector {
  name: string
  request: string
  enc: string
  response_secret: string
  nonce: string
  key: string
  base_nonce: string
  nonce_record: string
  records: { number: number; kind: RecordKind; data: string; wire: string }[]
}
interface ExchangeFile {
  padding: {
    request_sizes: { data: number; padded: number }[]
    record_sizes: { data: number; padded: number }[]
    request_faults: (Fault & { padded: string })[]
    record_faults: (Fault & { padded: string })[]
  }
  keys: KeyVector[]
  requests: RequestVector[]
  request_faults: RequestFault[]
  clock: {
    request: string
    fresh: { name: string; now_ms: number; expect: string | null }[]
    replayed: { name: string; at_ms: number[]; expect: (string | null)[] }[]
  }
  answers: AnswerVector[]
  answer_faults: (Fault & { base: string; wire: string[]; opens: number })[]
  cards: {
    identities: { name: string; public: string; node: string }[]
    signing_prefix: string
    good: {
      name: string
      expected_node: string
      identity: string
      signed: string
      signature: string
      text: string
      sequence: number
      key_ids: string[]
      models: string[]
    }[]
    faults: (Fault & { expected_node: string; text: string })[]
  }
  hello: {
    cases: { name: string; identity: string; signing_input: string; signature: string; valid: boolean }[]
  }
}

/** A file of vectors. */
export const read = (name: string): unknown =>
  JSON.parse(readFileSync(new URL(`../../../spec/vectors/${name}`, import.meta.url), 'utf8'))

export const VECTORS = read('exchange.json') as ExchangeFile

/** The code of the error that a step throws; null when it throws none. */
export async function codeOf(step: () => unknown): Promise<string | null> {
  try {
    await step()
    return null
  } catch (error) {
    if (error instanceof TokenPlaceError) return error.code
    throw error
  }
}

/** The value of that name. */
export function byName<Value extends { name: string }>(values: readonly Value[], name: string): Value {
  const found = values.find((value) => value.name === name)
  if (!found) throw new Error(`no vector ${name}`)
  return found
}

/** The faulty requests that one rule of the file describes. */
export function* edited(fault: RequestFault): Generator<Uint8Array<ArrayBuffer>> {
  if (fault.sealed !== undefined) {
    yield bytes(fault.sealed)
    return
  }
  const base = bytes(byName(VECTORS.requests, fault.base ?? '').sealed)
  if (fault.bits_from !== undefined && fault.bits_to !== undefined) {
    for (let bit = fault.bits_from; bit < fault.bits_to; bit++) {
      const changed = base.slice()
      changed[bit >> 3] = (changed[bit >> 3] ?? 0) ^ (0x80 >> (bit & 7))
      yield changed
    }
  } else if (fault.keep !== undefined) {
    yield base.slice(0, fault.keep)
  } else if (fault.append !== undefined) {
    yield Uint8Array.from([...base, ...bytes(fault.append)])
  } else {
    const longer = new Uint8Array(fault.extend_to ?? 0)
    longer.set(base)
    yield longer
  }
}

export const bytes = (hex: string): Uint8Array<ArrayBuffer> => Uint8Array.from(Buffer.from(hex, 'hex'))
