/** The relays a client knows, in order; the next one serves when one fails. */
import { Refused, RelayUnreachable } from '../errors.ts'
import type { NodeId } from '../wire/ids.ts'
import type { Directory, Door, Visit } from './door.ts'

/** For how long a directory is used again; a choice that is a little old only queues a little longer (ms). */
const FRESH = 2000

/** For how long a relay that failed is tried last (ms). */
const PAUSE = 10_000

const SUGGESTIONS = 8

export class Relays {
  readonly #doors: readonly Door[]
  readonly #named: () => Promise<readonly NodeId[]>
  readonly #sticky: boolean
  readonly #liked = new Map<string | null, NodeId>()
  readonly #failed = new Map<Door, number>()
  #directories: { door: Door; asked: string; at: number; directory: Directory }[] = []

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

  /**
   * What the relays know, the first that lists a wanted node at the end of it. Asks one after the other until one lists
   * such a node. Throws RelayUnreachable when none answered at all.
   */
  async directories(
    model: string | null,
    visit: Visit,
    wanted: (node: NodeId) => boolean = () => true,
  ): Promise<[Door, Directory][]> {
    const answers: [Door, Directory][] = []
    let problem: RelayUnreachable | null = null
    for (const door of this.inOrder()) {
      try {
        const directory = await this.#ask(door, model, visit)
        this.#failed.delete(door)
        answers.push([door, directory])
        if (directory.listings.some(({ card }) => wanted(card.body.node))) break
      } catch (error) {
        if (!(error instanceof RelayUnreachable || error instanceof Refused)) throw error
        this.failed(door)
        problem ??= new RelayUnreachable(error.message)
      }
    }
    if (!answers.length && problem) throw problem
    return answers
  }

  async #ask(door: Door, model: string | null, visit: Visit): Promise<Directory> {
    const now = performance.now()
    const named = await this.#named()
    const asked = JSON.stringify([model, named])
    const kept = this.#directories.find((each) => each.door === door && each.asked === asked)
    if (kept && now - kept.at < FRESH) return kept.directory
    const directory = await this.#look(door, model, named, visit)
    this.#directories = this.#directories.filter((each) => each !== kept && now - each.at < FRESH)
    if (directory.listings.length) this.#directories.push({ door, asked, at: now, directory })
    return directory
  }

  /** A relay suggests a few of its nodes at random, so those that were named are asked for by name. */
  async #look(door: Door, model: string | null, named: readonly NodeId[], visit: Visit): Promise<Directory> {
    const few = [...named].sort(() => Math.random() - 0.5).slice(0, SUGGESTIONS)
    const [first, ...others] = await Promise.all(few.map((node) => door.nodes(model, 1, visit, { node })))
    if (!first) return door.nodes(model, SUGGESTIONS, visit, { prefer: this.#liked.get(model) })
    return { ...first, listings: [first, ...others].flatMap(({ listings }) => listings) }
  }
}
