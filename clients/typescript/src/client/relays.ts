/** The relays a client knows, in order; the next one serves when one fails. */
import { Refused, RelayUnreachable, Stopped } from '../errors.ts'
import type { NodeId } from '../wire/ids.ts'
import type { Directory, Door, Listing, Visit } from './door.ts'

/** For how long a directory is used again; a choice that is a little old only queues a little longer (ms). */
const FRESH = 2000

/** For how long a relay that failed is tried last (ms). */
const PAUSE = 10_000

const SUGGESTIONS = 8

/** For how long a choice is counted (ms): as long as a directory is used that was under way when it was made. */
const REMEMBERED = 10_000

/** A directory, and when it was asked for. */
export interface Known extends Directory {
  readonly asked: number
}

export class Relays {
  readonly #doors: readonly Door[]
  readonly #named: () => Promise<readonly NodeId[]>
  readonly #sticky: boolean
  readonly #liked = new Map<string | null, NodeId>()
  readonly #failed = new Map<Door, number>()
  #directories: { door: Door; question: string; directory: Known }[] = []
  #looks: { door: Door; question: string; directory: Promise<Known> }[] = []
  #chosen: { at: number; node: NodeId }[] = []

  /** `named` are the only nodes to look for, if there are any; `sticky` asks whoever answered last first. */
  constructor(doors: readonly Door[], named: () => Promise<readonly NodeId[]>, sticky = false) {
    if (!doors.length) throw new RelayUnreachable('No relay is named.')
    this.#doors = doors
    this.#named = named
    this.#sticky = sticky
  }

  /** A node gave an answer; a sticky client asks it again while it has a free slot. */
  answered(model: string | null, node: NodeId): void {
    if (!this.#sticky || this.#liked.get(model) === node) return
    this.#liked.set(model, node)
    this.#directories = []
  }

  /** Every door, the best to try first. */
  inOrder(): Door[] {
    return [...this.#doors].sort((a, b) => Number(this.troubled(a)) - Number(this.troubled(b)))
  }

  /** The door to that relay, if it is one of ours. */
  named(name: string): Door | undefined {
    return this.#doors.find((door) => door.name === name)
  }

  /** The door to try after this one: the same again while it works, else the next in order. */
  after(door: Door): Door {
    if (!this.troubled(door)) return door
    const doors = this.inOrder()
    return doors[(doors.indexOf(door) + 1) % doors.length] ?? door
  }

  /** Whether it failed lately. */
  troubled(door: Door): boolean {
    return performance.now() - (this.#failed.get(door) ?? -Infinity) < PAUSE
  }

  /** A door did not open; try others first for a while. */
  failed(door: Door): void {
    this.#failed.set(door, performance.now())
    this.forget(door)
  }

  /** What that door said is out of date. */
  forget(door: Door): void {
    this.#directories = this.#directories.filter((kept) => kept.door !== door)
  }

  /** A node failed: what that door said is used on without it. Where nobody else is left, it is asked anew. */
  passOver(door: Door, node: NodeId): void {
    this.#directories = this.#directories.flatMap((kept) => {
      if (kept.door !== door) return [kept]
      const listings = kept.directory.listings.filter(({ card }) => card.body.node !== node)
      return listings.length ? [{ ...kept, directory: { ...kept.directory, listings } }] : []
    })
  }

  /** A request goes to this node: for whoever asks next, what the relays said of it is one request old. */
  chosen(node: NodeId): void {
    const at = performance.now()
    this.#chosen = this.#chosen.filter((each) => at - each.at < REMEMBERED)
    this.#chosen.push({ at, node })
  }

  /**
   * Its listings, counting what was chosen since it was asked for: first those that are free, in the relay's order, then
   * those with the shortest wait. Without it everybody who asks within the two seconds of one directory goes to the
   * same node. Choose before anything else is awaited.
   */
  inTurn({ listings, asked }: Known): Listing[] {
    const given = new Map<NodeId, number>()
    for (const { at, node } of this.#chosen) if (at >= asked) given.set(node, (given.get(node) ?? 0) + 1)
    if (!listings.some(({ card }) => given.has(card.body.node))) return [...listings]
    return listings
      .map((listing) => ({ listing, wait: waitAt(listing, given.get(listing.card.body.node) ?? 0) }))
      .sort((a, b) => a.wait - b.wait)
      .map(({ listing }) => listing)
  }

  /**
   * What the relays know, the first that lists a wanted node at the end of it. Asks one after the other until one lists
   * such a node; a relay that is going away only counts where no other does. Throws RelayUnreachable when none answered
   * at all.
   */
  async directories(
    model: string | null,
    visit: Visit,
    wanted: (node: NodeId) => boolean = () => true,
  ): Promise<[Door, Known][]> {
    const answers: [Door, Known][] = []
    let problem: RelayUnreachable | null = null
    for (const door of this.inOrder()) {
      try {
        const directory = await this.#ask(door, model, visit)
        this.#failed.delete(door)
        answers.push([door, directory])
        if (!directory.draining && directory.listings.some(({ card }) => wanted(card.body.node))) break
      } catch (error) {
        if (!(error instanceof RelayUnreachable || error instanceof Refused)) throw error
        this.failed(door)
        problem ??= new RelayUnreachable(error.message)
      }
    }
    if (!answers.length && problem) throw problem
    return answers.sort(([, a], [, b]) => Number(a.draining) - Number(b.draining))
  }

  /** Who is there. Those who ask in the same moment look once, and see each other's choices. */
  async #ask(door: Door, model: string | null, visit: Visit): Promise<Known> {
    const named = await this.#named()
    const question = JSON.stringify([model, named])
    const here = (each: { door: Door; question: string }): boolean => each.door === door && each.question === question
    for (;;) {
      const now = performance.now()
      const kept = this.#directories.find(here)
      if (kept && now - kept.directory.asked < FRESH) return kept.directory
      const look = this.#looks.find(here)
      if (!look) break
      try {
        return await look.directory
      } catch (error) {
        if (!(error instanceof Stopped) || visit.signal?.aborted) throw error // else only who looked for us gave up
      }
    }
    const look = { door, question, directory: this.#look(door, model, named, visit) }
    this.#looks.push(look)
    try {
      const directory = await look.directory
      this.#directories = this.#directories.filter(
        (each) => !here(each) && directory.asked - each.directory.asked < FRESH,
      )
      if (directory.listings.length) this.#directories.push({ door, question, directory })
      return directory
    } finally {
      this.#looks = this.#looks.filter((each) => each !== look)
    }
  }

  /** A relay suggests a few of its nodes at random, so those that were named are asked for by name. */
  async #look(door: Door, model: string | null, named: readonly NodeId[], visit: Visit): Promise<Known> {
    const asked = performance.now()
    const few = [...named].sort(() => Math.random() - 0.5).slice(0, SUGGESTIONS)
    const [first, ...others] = await Promise.all(few.map((node) => door.nodes(model, 1, visit, { node })))
    if (!first) return { ...(await door.nodes(model, SUGGESTIONS, visit, { prefer: this.#liked.get(model) })), asked }
    return { ...first, listings: [first, ...others].flatMap(({ listings }) => listings), asked }
  }
}

/** How many answers a request would wait for at a node that was given so many more since it was listed. */
function waitAt({ slots, free, queued }: Listing, given: number): number {
  return given < free ? 0 : (queued + given - Math.max(0, free) + 1) / Math.max(1, slots)
}
