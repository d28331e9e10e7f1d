/**
 * How lengths are hidden: `u32 length ‖ data ‖ zeros`, up to a size that many others share.
 *
 * A request's whole is rounded up to PADMÉ's step for its size (PURBs, PETS 2019), and never to a finer one than 256
 * bytes; a record's to a multiple of 64. Reading is strict: there is exactly one padding for each length.
 */
import { WireError } from '../errors.ts'
import type { Bytes } from '../wire/bytes.ts'

const LENGTH_BYTES = 4
const REQUEST_STEP = 256
const RECORD_STEP = 64

const roundUp = (size: number, step: number): number => Math.ceil(size / step) * step

/** Padded requests of about `size` bytes (at least 1) are multiples of this. */
function requestStep(size: number): number {
  const exponent = 31 - Math.clz32(size)
  return Math.max(REQUEST_STEP, 2 ** (exponent - (32 - Math.clz32(exponent))))
}

/** The padded size of a request body with `data` bytes. */
export function requestSize(data: number): number {
  const total = LENGTH_BYTES + data
  return roundUp(total, requestStep(total))
}

/** The most data whose padded size stays within `size` bytes (at least 256). */
export function requestRoom(size: number): number {
  const step = requestStep(size)
  return Math.floor(size / step) * step - LENGTH_BYTES
}

/** The padded size of a record with `data` bytes. */
export const recordSize = (data: number): number => roundUp(LENGTH_BYTES + data, RECORD_STEP)

export const padRequest = (data: Uint8Array): Bytes => pad(data, requestSize(data.length))
export const padRecord = (data: Uint8Array): Bytes => pad(data, recordSize(data.length))

/** The reverse of `padRequest`. Throws WireError unless it is byte for byte what `padRequest` gives. */
export const unpadRequest = (padded: Bytes): Bytes => unpad(padded, requestSize)

/** The reverse of `padRecord`. Throws WireError unless it is byte for byte what `padRecord` gives. */
export const unpadRecord = (padded: Bytes): Bytes => unpad(padded, recordSize)

function pad(data: Uint8Array, size: number): Bytes {
  const padded = new Uint8Array(size)
  new DataView(padded.buffer).setUint32(0, data.length)
  padded.set(data, LENGTH_BYTES)
  return padded
}

function unpad(padded: Bytes, sizeOf: (data: number) => number): Bytes {
  if (padded.length < LENGTH_BYTES) throw new WireError('The padded message is shorter than a length.')
  const length = new DataView(padded.buffer, padded.byteOffset).getUint32(0)
  const end = LENGTH_BYTES + length
  if (end > padded.length) throw new WireError('The padded message is shorter than the length it states.')
  if (padded.subarray(end).some((byte) => byte !== 0)) throw new WireError('The padding is not zeros.')
  if (padded.length !== sizeOf(length))
    throw new WireError('This is not padded to the size that its length asks for.')
  return padded.slice(LENGTH_BYTES, end)
}
