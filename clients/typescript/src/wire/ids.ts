/** Names that travel. Branded, so that the type checker tells them apart. */
import { WireError } from '../errors.ts'
import { base32, hex } from './bytes.ts'

declare const brand: unique symbol
type Named<Name extends string> = string & { readonly [brand]: Name }

/** 32 lower-case base32 characters: SHA-256 of the node's Ed25519 identity key, first 20 bytes. */
export type NodeId = Named<'NodeId'>
/** 32 lower-case hex characters: the 16 random bytes of the request id. */
export type JobId = Named<'JobId'>

const NODE_ID_BYTES = 20

/** The fingerprint people see and pin. */
export async function nodeIdOf(identity: Uint8Array<ArrayBuffer>): Promise<NodeId> {
  const digest = new Uint8Array(await crypto.subtle.digest('SHA-256', identity))
  return base32(digest.subarray(0, NODE_ID_BYTES)) as NodeId
}

/** A node id as a person or program wrote it. Throws WireError when it cannot be one. */
export function parseNodeId(written: string): NodeId {
  const cleaned = written.trim().replaceAll(/[- ]/g, '').toLowerCase()
  if (!/^[a-z2-7]{32}$/.test(cleaned)) throw new WireError('A node id is 32 characters of a-z and 2-7.')
  return cleaned as NodeId
}

/** A node id in groups of four, as shown to people. */
export function showNodeId(node: NodeId): string {
  return node.match(/.{1,4}/g)?.join('-') ?? ''
}

export const jobIdOf = (requestId: Uint8Array): JobId => hex(requestId) as JobId
