/** Python at the other end of a pipe: `python_end.py`, one question and one answer a line. */
import { type ChildProcessWithoutNullStreams, spawn } from 'node:child_process'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { PYTHON } from './stage.ts'

export class PythonEnd {
  readonly #process: ChildProcessWithoutNullStreams
  readonly #lines: AsyncIterator<string>

  constructor() {
    this.#process = spawn(PYTHON, [fileURLToPath(new URL('python_end.py', import.meta.url))])
    this.#process.stderr.pipe(process.stderr) // what went wrong there
    this.#lines = createInterface(this.#process.stdout)[Symbol.asyncIterator]()
  }

  async ask(question: object): Promise<Record<string, unknown>> {
    this.#process.stdin.write(`${JSON.stringify(question)}\n`)
    const { value } = await this.#lines.next()
    return JSON.parse(String(value)) as Record<string, unknown>
  }

  close(): void {
    this.#process.stdin.end()
  }
}
