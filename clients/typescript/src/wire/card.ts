/**
 * A node's card: who it is, which keys it seals with and what it serves, signed by its identity.
 *
 * It travels as `base64url(body) "." base64url(signature)`. The bytes that were signed travel unchanged, so nobody needs
 * canonical JSON. Reading a card proves nothing; `sealing/identity.ts` does.
 */
import { TooLarge, WireError } from '../errors.ts'
import { type Bytes, concat, isObject, object, unbase64url, utf8 } from './bytes.ts'
import { type NodeId, nodeIdOf } from './ids.ts'
import { MAX_CONTROL } from './limits.ts'
import { isKem, type Kem } from './request.ts'

const SIGNING_PREFIX = utf8('tp/2 card\0')
const IDENTITY_BYTES = 32
const SIGNATURE_BYTES = 64

/** One public key that requests may be sealed to. Times are unix milliseconds. */
export interface SealingKey {
  readonly kem: Kem
  readonly publicKey: Bytes
  readonly notBeforeMs: number
  readonly notAfterMs: number
}

/** One model that the node serves: its id, context in tokens, what it can do, and its file's SHA-256. */
export interface ModelCard {
  readonly id: string
  readonly context: number
  readonly capabilities: readonly string[]
  readonly digest: string | null
}

/** What a card says. `sequence` grows with every change, so that an old card cannot pass for a new one. */
export interface CardBody {
  readonly node: NodeId
  readonly identity: Bytes
  readonly sequence: number
  readonly issuedMs: number
  readonly keys: readonly SealingKey[]
  readonly models: readonly ModelCard[]
}

/** A card as it travels: parsed, not believed. */
export interface Card {
  readonly body: CardBody
  readonly text: string
  readonly signed: Bytes
  readonly signature: Bytes
}

/** What the identity key signed. */
export const signingInput = (card: Card): Bytes => concat(SIGNING_PREFIX, card.signed)

/** Read a card without believing it. Throws WireError when it is malformed or contradicts itself. */
export async function parseCard(text: string): Promise<Card> {
  if (text.length > MAX_CONTROL) throw new TooLarge(`A card may have ${MAX_CONTROL} characters, not ${text.length}.`)
  const dot = text.indexOf('.')
  if (dot < 0) throw new WireError('A card is two base64url parts with a dot between.')
  const signed = unbase64url(text.slice(0, dot))
  const signature = unbase64url(text.slice(dot + 1))
  if (signature.length !== SIGNATURE_BYTES) throw new WireError('A card’s signature has 64 bytes.')
  return { body: await readBody(object(signed)), text, signed, signature }
}

async function readBody(raw: Record<string, unknown>): Promise<CardBody> {
  if (raw['v'] !== 2) unlike('v')
  const identity = unbase64url(string(raw, 'identity'))
  const node = await nodeIdOf(identity)
  if (identity.length !== IDENTITY_BYTES || raw['node'] !== node) unlike('node')
  return {
    node,
    identity,
    sequence: whole(raw, 'sequence'),
    issuedMs: whole(raw, 'issued_ms'),
    keys: objects(raw, 'keys').flatMap((key) =>
      isKem(key['kem'])
        ? {
            kem: key['kem'],
            publicKey: unbase64url(string(key, 'public')),
            notBeforeMs: whole(key, 'not_before_ms'),
            notAfterMs: whole(key, 'not_after_ms'),
          }
        : [],
    ),
    models: objects(raw, 'models').map((model) => ({
      id: name(model['id']),
      context: whole(model, 'context'),
      capabilities: list(model, 'capabilities').map(name),
      digest: model['digest'] == null ? null : name(model['digest']),
    })),
  }
}

function unlike(field: string): never {
  throw new WireError(`The card’s body is not what a card says (${field}).`)
}

function string(raw: Record<string, unknown>, field: string): string {
  const value = raw[field]
  return typeof value === 'string' ? value : unlike(field)
}

function whole(raw: Record<string, unknown>, field: string): number {
  const value = raw[field]
  return typeof value === 'number' && Number.isSafeInteger(value) && value >= 0 ? value : unlike(field)
}

function list(raw: Record<string, unknown>, field: string): unknown[] {
  const value = raw[field]
  return Array.isArray(value) ? value : unlike(field)
}

function objects(raw: Record<string, unknown>, field: string): Record<string, unknown>[] {
  return list(raw, field).map((value) => (isObject(value) ? value : unlike(field)))
}

function name(value: unknown): string {
  return typeof value === 'string' && value.length > 0 && value.length <= 256 ? value : unlike('a name')
}
