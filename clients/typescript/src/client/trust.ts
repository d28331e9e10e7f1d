/**
 * Which nodes a client believes. A relay shows cards; only a signature by the node's identity makes one true.
 *
 * A node id is the fingerprint of the identity key, so a relay cannot put its own key behind a known id. What it could do
 * is to show nodes of its own; so people may pin the ids they trust, trust somebody who vouches for nodes, and see of every
 * other whether it was met before.
 */
import { UntrustedCard } from '../errors.ts'
import { isObject, object } from '../wire/bytes.ts'
import type { Card, CardBody } from '../wire/card.ts'
import type { NodeId } from '../wire/ids.ts'
import type { Voucher } from '../wire/voucher.ts'
import { verifyCard, verifyVoucher } from '../sealing/identity.ts'

const REMEMBERED = 2000
const CHECKED_CARDS = 512

/** How well a client knows a node. */
export type Standing = 'pinned' | 'vouched' | 'known' | 'new'

/** A card that was checked. */
export interface Believed {
  readonly body: CardBody
  readonly standing: Standing
}

/** Where a memory is kept between runs: a file, localStorage, anything that holds a text. */
export interface Shelf {
  load(): string | null
  save(text: string): void
}

/** The nodes met before, with the newest card of each. */
export class Memory {
  readonly #sequences = new Map<string, number>()
  readonly #shelf: Shelf | null

  constructor(shelf: Shelf | null = null) {
    this.#shelf = shelf
    try {
      const { nodes } = object(shelf?.load() ?? '{}')
      for (const [node, sequence] of isObject(nodes) ? Object.entries(nodes) : []) {
        if (typeof sequence === 'number') this.#sequences.set(node, sequence)
      }
    } catch {
      this.#sequences.clear() // an unreadable memory is an empty one: nodes show as new again
    }
  }

  /** The newest card's number, or undefined for a node never met. */
  sequence(node: NodeId): number | undefined {
    return this.#sequences.get(node)
  }

  /** Remember a node; the ones not met for longest are forgotten. */
  meet(node: NodeId, sequence: number): void {
    const known = this.#sequences.get(node)
    if (known === sequence) return
    this.#sequences.delete(node)
    this.#sequences.set(node, Math.max(sequence, known ?? 0))
    for (const oldest of this.#sequences.keys()) {
      if (this.#sequences.size <= REMEMBERED) break
      this.#sequences.delete(oldest)
    }
    this.#shelf?.save(JSON.stringify({ nodes: Object.fromEntries(this.#sequences) }))
  }
}

/** The client's rules. With pins or issuers of vouchers, nobody else is asked; without, everybody whose card holds. */
export class Trust {
  pins: ReadonlySet<NodeId>
  /** Whose vouchers are believed. */
  issuers: ReadonlySet<NodeId>
  readonly #memory: Memory
  readonly #checked = new Map<string, CardBody>()
  #vouchers: readonly Voucher[] = []

  readonly #nowMs: () => number

  constructor(
    pins: Iterable<NodeId> = [],
    issuers: Iterable<NodeId> = [],
    memory: Memory = new Memory(),
    nowMs: () => number = () => Date.now(),
  ) {
    this.pins = new Set(pins)
    this.issuers = new Set(issuers)
    this.#memory = memory
    this.#nowMs = nowMs
  }

  /** The nodes that are pinned or vouched for now. */
  get named(): NodeId[] {
    return [...new Set([...this.pins, ...this.#alive().flatMap(({ nodes }) => nodes)])]
  }

  /** Whether only named nodes may be asked. */
  get selective(): boolean {
    return this.pins.size + this.issuers.size > 0
  }

  /** Whether a node may be asked at all, as far as its id tells. */
  admits(node: NodeId): boolean {
    return !this.selective || ['pinned', 'vouched'].includes(this.standing(node))
  }

  /** Believe a voucher. Throws UntrustedCard: not signed, expired, or by nobody you believe; WireError: it is none. */
  async vouch(text: string): Promise<Voucher> {
    const voucher = await verifyVoucher(text, this.issuers, this.#nowMs())
    this.#vouchers = [...this.#alive(), voucher]
    return voucher
  }

  /** Forget what that issuer vouched for. */
  unvouch(issuer: NodeId): void {
    this.#vouchers = this.#vouchers.filter((voucher) => voucher.issuer !== issuer)
  }

  #alive(): Voucher[] {
    return this.#vouchers.filter(({ issuer, expiresMs }) => this.issuers.has(issuer) && expiresMs > this.#nowMs())
  }

  /** Believe a card, or throw UntrustedCard: not signed, not among those you named, or older than one already seen. */
  async check(card: Card): Promise<Believed> {
    let body = this.#checked.get(card.text)
    if (!body) {
      body = await verifyCard(card, null)
      if (this.#checked.size >= CHECKED_CARDS) this.#checked.clear()
      this.#checked.set(card.text, body)
    }
    if (!this.admits(body.node)) {
      throw new UntrustedCard(`The node ${body.node} is neither pinned nor vouched for; nothing was sent.`)
    }
    const newest = this.#memory.sequence(body.node)
    if (newest !== undefined && body.sequence < newest) {
      throw new UntrustedCard('The relay shows an old card of this node; nothing was sent.')
    }
    return { body, standing: this.standing(body.node) }
  }

  /** How well we know a node. */
  standing(node: NodeId): Standing {
    if (this.pins.has(node)) return 'pinned'
    if (this.#alive().some(({ nodes }) => nodes.includes(node))) return 'vouched'
    return this.#memory.sequence(node) === undefined ? 'new' : 'known'
  }

  /** An answer of this node was opened: remember it. */
  met(body: CardBody): void {
    this.#memory.meet(body.node, body.sequence)
  }
}
