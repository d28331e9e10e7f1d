/** SHA3-256 in JavaScript (noble), for runtimes without: browsers in 2026. */
import { sha3_256 } from '@noble/hashes/sha3.js'

export const sha3 = (data: Uint8Array): Promise<Uint8Array> => Promise.resolve(sha3_256(data))
