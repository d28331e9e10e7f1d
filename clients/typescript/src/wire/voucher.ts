/**
 * A voucher: a list of nodes that somebody vouches for, signed by them (`signed.ts`). The body is
 *
 *     {"v": 2, "issuer": id, "identity": key, "issued_ms", "expires_ms", "nodes": [id, …]}
 *
 * The issuer's id follows from the identity key as a node's does, so people can tell each other whom they trust.
 */
import { type NodeId, parseNodeId } from './ids.ts'
import { type Fields, parseSigned, type Signed } from './signed.ts'

const MAX_NODES = 1000

/** A voucher as it was read: parsed, not believed. Times are unix milliseconds. */
export interface Voucher {
  readonly issuer: NodeId
  readonly issuedMs: number
  readonly expiresMs: number
  readonly nodes: readonly NodeId[]
  readonly signed: Signed
}

/** Read a voucher without believing it. Throws WireError. */
export async function parseVoucher(text: string): Promise<Voucher> {
  const signed = await parseSigned('voucher', 'issuer', text.trim())
  const { by } = signed
  const fields: Fields = signed.fields
  const nodes = fields.names('nodes', MAX_NODES).map(parseNodeId)
  fields.check('nodes', nodes.length > 0)
  return { issuer: by, issuedMs: fields.whole('issued_ms'), expiresMs: fields.whole('expires_ms'), nodes, signed }
}
