/**
 * A voucher: a list of nodes that somebody vouches for, signed by them.
 *
 * It travels as a card does, `base64url(body) "." base64url(signature)`: body is JSON
 * `{"v": 2, "issuer": id, "identity": key, "issued_ms", "expires_ms", "nodes": [id, …]}`, the signature Ed25519 over
 * `"tp/2 voucher\0" ‖ body`. The issuer's id follows from the identity key as a node's does, so people can tell each other
 * whom they trust. Reading one proves nothing; `client/trust.ts` does.
 */
import { WireError } from '../errors.ts'
import { type Bytes, concat, object, unbase64url, utf8 } from './bytes.ts'
import { type NodeId, nodeIdOf, parseNodeId } from './ids.ts'

const SIGNING_PREFIX = utf8('tp/2 voucher\0')

export interface Voucher {
  readonly issuer: NodeId
  readonly identity: Bytes
  readonly expiresMs: number
  readonly nodes: readonly NodeId[]
  /** What the issuer's identity signed, and the signature. */
  readonly signed: Bytes
  readonly signature: Bytes
}

/** Read a voucher without believing it. Throws WireError. */
export async function parseVoucher(text: string): Promise<Voucher> {
  const [head = '', tail = ''] = text.trim().split('.')
  const body = unbase64url(head)
  const { v, issuer: named, identity, expires_ms: expiresMs, nodes } = object(body)
  if (v !== 2 || typeof identity !== 'string' || !Array.isArray(nodes) || typeof expiresMs !== 'number') {
    throw new WireError('This is no voucher.')
  }
  const key = unbase64url(identity)
  const issuer = await nodeIdOf(key)
  if (named !== issuer) throw new WireError('The voucher’s issuer does not follow from its key.')
  return {
    issuer,
    identity: key,
    expiresMs,
    nodes: nodes.map((node) => parseNodeId(String(node))),
    signed: concat(SIGNING_PREFIX, body),
    signature: unbase64url(tail),
  }
}
