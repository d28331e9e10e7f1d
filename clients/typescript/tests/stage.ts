/** Real relays and nodes on loopback, started as the README says and ended by their ids. */
import { type ChildProcess, spawn } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

const ROOT = fileURLToPath(new URL('../../../', import.meta.url))
export const PYTHON = process.env['TOKENPLACE_PYTHON'] ?? join(ROOT, '.venv/bin/python')

export interface Program {
  url: string
  process: ChildProcess
  said: () => string
  /** End it at once, as a power cut would. */
  kill: () => Promise<void>
}

export async function until<Value>(what: string, look: () => Promise<Value | null | false>): Promise<Value> {
  const deadline = Date.now() + 25_000
  for (;;) {
    try {
      const seen = await look()
      if (seen !== null && seen !== false) return seen
    } catch {
      // not there yet
    }
    if (Date.now() > deadline) throw new Error(`waited too long for ${what}`)
    await new Promise((resolve) => setTimeout(resolve, 25))
  }
}

export function freePort(): Promise<number> {
  return new Promise((resolve) => {
    const probe = createServer().listen(0, '127.0.0.1', () => {
      const address = probe.address()
      probe.close(() => resolve(typeof address === 'object' && address ? address.port : 0))
    })
  })
}

/** What a relay says of its nodes. */
export interface Shown {
  node: string
  models: string[]
  slots: number
  free: number
}

export async function nodesAt(relay: string): Promise<Shown[]> {
  const response = await fetch(`${relay}/api/v1/relay/server-nodes`)
  return ((await response.json()) as { nodes: Shown[] }).nodes
}

export class Stage {
  readonly #programs: Program[] = []
  readonly #folders: string[] = []

  /** A relay on a port of its own, with the page; one that is not blind has a gateway too. */
  async relay(port = 0, { blind = true, environment = {} } = {}): Promise<Program> {
    const chosen = port || (await freePort())
    const url = `http://127.0.0.1:${chosen}`
    const program = this.start(['relay', ...(blind ? ['--blind'] : []), '--port', String(chosen)], environment, url)
    await until('the relay', async () => (await fetch(`${url}/livez`)).ok)
    return program
  }

  folder(): string {
    const folder = mkdtempSync(join(tmpdir(), 'tokenplace-'))
    this.#folders.push(folder)
    return folder
  }

  /** A node at those relays; `delay` is seconds between two words of the echo. */
  async node(
    relays: string[],
    { delay = 0, slots = 8, home = this.folder(), engine = 'echo', environment = {} } = {},
  ): Promise<Program> {
    const links = relays.flatMap((relay) => ['--relay', relay])
    const own = { TOKEN_PLACE_ECHO_DELAY: String(delay), TOKEN_PLACE_STATE_DIR: home, ...environment }
    const before = new Set((await Promise.all(relays.map(nodesAt))).flat().map(({ node }) => node))
    const program = this.start(['node', '--engine', engine, '--slots', String(slots), ...links], own, relays[0] ?? '')
    await until(`the node (${program.said()})`, async () => {
      const now = await Promise.all(relays.map(nodesAt))
      return now.every((nodes) => nodes.some(({ node }) => !before.has(node)))
    })
    return program
  }

  start(args: string[], environment: Record<string, string>, url: string): Program {
    const child = spawn(PYTHON, ['-m', 'tokenplace.cli.main', ...args], {
      cwd: ROOT,
      env: { ...process.env, ...environment },
      stdio: ['ignore', 'pipe', 'pipe'],
    })
    let output = ''
    for (const pipe of [child.stdout, child.stderr]) pipe.on('data', (data: Buffer) => (output += data.toString()))
    const gone = new Promise<void>((resolve) => child.on('exit', () => resolve()))
    const program: Program = {
      url,
      process: child,
      said: () => output,
      kill: () => {
        child.kill('SIGKILL')
        return gone
      },
    }
    this.#programs.push(program)
    return program
  }

  async close(): Promise<void> {
    await Promise.all(this.#programs.map((program) => program.kill()))
    for (const folder of this.#folders) rmSync(folder, { recursive: true, force: true })
  }
}
