/** The sealed path from the browser costs at most 10 ms at the median over the Python client's. */
import { execFile } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { expect, test } from 'vitest'
import { PYTHON } from '../../clients/typescript/tests/stage.ts'
import { launch, PAGE_RELAY, Stage, Visit } from './browser.ts'

const COUNT = 30
const median = (values: number[]): number => values.sort((a, b) => a - b)[Math.floor(values.length / 2)] ?? NaN

test('the first word in the page is as fast as in Python', async () => {
  const stage = new Stage()
  const browser = await launch()
  try {
    const relay = await stage.relay(0, PAGE_RELAY)
    await stage.node([relay.url])
    const visit = await Visit.open(browser, relay.url)
    await visit.ready()
    const page: number[] = []
    for (let i = 0; i < COUNT; i++) {
      await visit.page.getByRole('button', { name: 'New chat' }).click()
      await visit.question.fill('hello there')
      // People take a moment between the last letter and Enter; the Python side pauses as long between two questions.
      await visit.page.waitForTimeout(100)
      await visit.question.press('Enter')
      await visit.replies.last().locator('.speed').waitFor()
      const [, shown] = /first word after (\d+) ms/.exec(await visit.page.locator('.speed').innerText()) ?? []
      page.push(Number(shown))
    }
    await visit.close()
    const script = fileURLToPath(new URL('python_first_word.py', import.meta.url))
    const { stdout } = await promisify(execFile)(PYTHON, [script, relay.url, String(COUNT)])
    const python = stdout.trim().split('\n').map(Number)
    const [inPage, inPython] = [median(page), median(python)]
    console.log(`first word, median of ${COUNT}: page ${inPage} ms, Python ${inPython} ms`)
    expect(inPage - inPython).toBeLessThan(10)
  } finally {
    await browser.close()
    await stage.close()
  }
})
