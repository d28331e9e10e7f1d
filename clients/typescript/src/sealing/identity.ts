/** What a card says, once it is certain that the node itself says it. */
import { UntrustedCard } from '../errors.ts'
import { type Card, type CardBody, signingInput } from '../wire/card.ts'
import type { NodeId } from '../wire/ids.ts'
import { verify } from './hpke.ts'

/**
 * The body of a card signed by its own identity. `expected` is the id that the client trusts; null takes the card of any
 * node, which proves only that nobody altered it. Throws UntrustedCard.
 */
export async function verifyCard(card: Card, expected: NodeId | null): Promise<CardBody> {
  const { body } = card
  if (expected !== null && body.node !== expected) {
    throw new UntrustedCard(`The card is of node ${body.node}, not of ${expected}; nothing was sent.`)
  }
  if (!(await verify(body.identity, card.signature, signingInput(card)))) {
    throw new UntrustedCard(`The card of node ${body.node} is not signed by that node; nothing was sent.`)
  }
  return body
}
