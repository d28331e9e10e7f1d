/**
 * A node's card: who it is, which keys it seals with and what it serves, signed by its identity (`signed.ts`). Reading a
 * card proves nothing; `sealing/identity.ts` does.
 */
import { type Bytes, unbase64url } from './bytes.ts'
import type { NodeId } from './ids.ts'
import { isKem, type Kem } from './request.ts'
import { parseSigned, type Signed } from './signed.ts'

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
  readonly sequence: number
  readonly issuedMs: number
  readonly keys: readonly SealingKey[]
  readonly models: readonly ModelCard[]
}

/** A card as it travels: parsed, not believed. */
export interface Card {
  readonly body: CardBody
  readonly text: string
  readonly signed: Signed
}

/** Read a card without believing it. Throws WireError when it is malformed or contradicts itself. */
export async function parseCard(text: string): Promise<Card> {
  const signed = await parseSigned('card', 'node', text)
  const { by, fields } = signed
  const body = {
    node: by,
    sequence: fields.whole('sequence'),
    issuedMs: fields.whole('issued_ms'),
    keys: fields.objects('keys').flatMap((key) => {
      const { kem } = key.raw
      if (!isKem(kem)) return []
      return {
        kem,
        publicKey: unbase64url(key.string('public')),
        notBeforeMs: key.whole('not_before_ms'),
        notAfterMs: key.whole('not_after_ms'),
      }
    }),
    models: fields.objects('models').map((model) => ({
      id: model.name('id'),
      context: model.whole('context'),
      capabilities: model.names('capabilities'),
      digest: model.raw['digest'] == null ? null : model.name('digest'),
    })),
  }
  return { body, text, signed }
}
