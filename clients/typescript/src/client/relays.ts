/** The relays a client knows, in order; the next one serves when one fails. */
import { Refused, RelayUnreachable } from '../errors.ts'
import type { Directory, Door, Visit } from './door.ts'

/** For how long a directory is used again; a choice that is a little old only queues a little longer (ms). */
const FRESH = 2000

/** For how long a relay that failed is tried last (ms). */
const PAUSE = 10_000

const SUGGESTIONS = 8

export class Relays {
  readonly #doors: readonly Door[]
  readonly #failed = new Map<Door, number>()
  #directories: { door: Door; model: string | null; at: number; directory: Directory }[] = []

  constructor(doors: readonly Door[]) {
    if (!doors.length) throw new RelayUnreachable('No relay is named.')
    this.#doors = doors
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
   * What the relays know, the first that lists nodes at the end of it. Asks one after the other until one lists a node.
   * Throws RelayUnreachable when none answered at all.
   */
  async directories(model: string | null, visit: Visit): Promise<[Door, Directory][]> {
    const answers: [Door, Directory][] = []
    let problem: RelayUnreachable | null = null
    for (const door of this.inOrder()) {
      try {
        const directory = await this.#ask(door, model, visit)
        this.#failed.delete(door)
        answers.push([door, directory])
        if (directory.listings.length) break
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
    const kept = this.#directories.find((each) => each.door === door && each.model === model)
    if (kept && now - kept.at < FRESH) return kept.directory
    const directory = await door.nodes(model, SUGGESTIONS, visit)
    this.#directories = this.#directories.filter((each) => each !== kept && now - each.at < FRESH)
    if (directory.listings.length) this.#directories.push({ door, model, at: now, directory })
    return directory
  }
}
