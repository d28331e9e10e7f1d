/** Bytes and the few notations of them that the protocol uses. */
import { WireError } from '../errors.ts'

export type Bytes = Uint8Array<ArrayBuffer>

const encoder = new TextEncoder()
const decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })

/** UTF-8. */
export const utf8 = (text: string): Bytes => encoder.encode(text)

/** The text of UTF-8 bytes. Throws WireError when they are none. */
export function text(bytes: Uint8Array): string {
  try {
    return decoder.decode(bytes)
  } catch {
    throw new WireError('This is not UTF-8.')
  }
}

export function concat(...parts: readonly Uint8Array[]): Bytes {
  const whole = new Uint8Array(parts.reduce((size, part) => size + part.length, 0))
  let at = 0
  for (const part of parts) {
    whole.set(part, at)
    at += part.length
  }
  return whole
}

/** Lower-case hex. */
export function hex(bytes: Uint8Array): string {
  let digits = ''
  for (const byte of bytes) digits += byte.toString(16).padStart(2, '0')
  return digits
}

/** The bytes of hex digits. Throws WireError. */
export function unhex(digits: string): Bytes {
  if (digits.length % 2 || /[^0-9a-f]/.test(digits)) throw new WireError('This is not hex.')
  return Uint8Array.from({ length: digits.length / 2 }, (_, i) => parseInt(digits.slice(2 * i, 2 * i + 2), 16))
}

/** base64url without padding. */
export function base64url(bytes: Uint8Array): string {
  let binary = ''
  for (const byte of bytes) binary += String.fromCharCode(byte)
  return btoa(binary).replaceAll('+', '-').replaceAll('/', '_').replaceAll('=', '')
}

/** The reverse of `base64url`, strict: there is one spelling for any bytes. Throws WireError. */
export function unbase64url(digits: string): Bytes {
  try {
    const binary = atob(digits.replaceAll('-', '+').replaceAll('_', '/'))
    const bytes = Uint8Array.from(binary, (character) => character.charCodeAt(0))
    // atob lets spaces, padding, the other alphabet and stray bits at the end pass
    if (base64url(bytes) === digits) return bytes
  } catch {
    // not base64 at all
  }
  throw new WireError('This is not base64url.')
}

/** base64 with padding, as the original's protocol has it. */
export function base64(bytes: Uint8Array): string {
  const digits = base64url(bytes).replaceAll('-', '+').replaceAll('_', '/')
  return digits.padEnd(4 * Math.ceil(digits.length / 4), '=')
}

/** The reverse of `base64`: no white space, whole groups. Throws WireError. */
export function unbase64(digits: string): Bytes {
  const whole = digits.length % 4 === 0 && /^[A-Za-z0-9+/]*={0,2}$/.test(digits)
  if (!whole) throw new WireError('This is not base64.')
  return Uint8Array.from(atob(digits), (character) => character.charCodeAt(0))
}

const BASE32 = 'abcdefghijklmnopqrstuvwxyz234567'

/** Lower-case base32 of whole groups of five bytes. */
export function base32(bytes: Uint8Array): string {
  let digits = ''
  let bits = 0
  let held = 0
  for (const byte of bytes) {
    held = (held << 8) | byte
    for (bits += 8; bits >= 5;) digits += BASE32[(held >> (bits -= 5)) & 31]
    held &= (1 << bits) - 1
  }
  return digits
}

/** A JSON object from bytes or text. Throws WireError. */
export function object(json: Uint8Array | string): Record<string, unknown> {
  let value: unknown
  try {
    value = JSON.parse(typeof json === 'string' ? json : text(json))
  } catch {
    throw new WireError('This is not JSON.')
  }
  if (!isObject(value)) throw new WireError('This is not a JSON object.')
  return value
}

export function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}
