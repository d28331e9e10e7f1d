/** What a card or a voucher says, once it is certain who says it. */
import { UntrustedCard } from '../errors.ts'
import type { Card, CardBody } from '../wire/card.ts'
import type { NodeId } from '../wire/ids.ts'
import type { Signed } from '../wire/signed.ts'
import { parseVoucher, type Voucher } from '../wire/voucher.ts'
import { verify } from './hpke.ts'

/**
 * The body of a card signed by its own identity. `expected` is the id that the client trusts; null takes the card of any
 * node, which proves only that nobody altered it. Throws UntrustedCard.
 */
export async function verifyCard({ body, signed }: Card, expected: NodeId | null): Promise<CardBody> {
  if (expected !== null && body.node !== expected) {
    throw new UntrustedCard(`The card is of node ${body.node}, not of ${expected}; nothing was sent.`)
  }
  await hold(signed, 'card')
  return body
}

/** A voucher that one of the trusted `issuers` signed and that has not expired. Throws UntrustedCard, WireError. */
export async function verifyVoucher(text: string, issuers: ReadonlySet<NodeId>, nowMs: number): Promise<Voucher> {
  const voucher = await parseVoucher(text)
  const { issuer, expiresMs, signed } = voucher
  if (!issuers.has(issuer)) throw new UntrustedCard(`Vouchers of ${issuer} are not among those you believe.`)
  await hold(signed, 'voucher')
  if (expiresMs <= nowMs) throw new UntrustedCard('This voucher has expired; ask its issuer for a newer one.')
  return voucher
}

async function hold({ by, identity, input, signature }: Signed, what: string): Promise<void> {
  if (await verify(identity, signature, input)) return
  throw new UntrustedCard(`The ${what} of ${by} is not signed by who it says; nothing was sent.`)
}
