/** Chromium, a relay that serves the page, and what the tests do with them. */
import { execFile } from 'node:child_process'
import { mkdirSync } from 'node:fs'
import { promisify } from 'node:util'
import { type Browser, type BrowserContextOptions, chromium, type Locator, type Page } from 'playwright-core'
import { expect } from 'vitest'
import { nodesAt, type Program, PYTHON, Stage, until } from '../../clients/typescript/tests/stage.ts'

export { nodesAt, type Program, Stage, until }

const SHOTS = process.env['TOKENPLACE_SHOTS'] ?? '/tmp/tokenplace-shots'

export const DESKTOP = { viewport: { width: 1360, height: 860 } } satisfies BrowserContextOptions
export const PHONE = {
  viewport: { width: 390, height: 844 },
  deviceScaleFactor: 2,
  isMobile: true,
  hasTouch: true,
} satisfies BrowserContextOptions

export const launch = (): Promise<Browser> =>
  chromium.launch({
    executablePath: process.env['CHROMIUM'] ?? '/usr/bin/chromium',
    args: [
      '--headless',
      '--no-sandbox',
      '--disable-gpu',
      '--disable-quic',
      '--no-first-run',
      '--disable-background-networking',
      '--disable-component-update',
      '--disable-sync',
      '--host-resolver-rules=MAP relay.test 127.0.0.1',
    ],
  })

/** One open page; everything that it must never do is noted. */
export class Visit {
  readonly page: Page
  readonly faults: string[] = []

  private constructor(page: Page) {
    this.page = page
  }

  static async open(browser: Browser, url: string, options: BrowserContextOptions = DESKTOP): Promise<Visit> {
    const context = await browser.newContext({ ...options, permissions: ['clipboard-read', 'clipboard-write'] })
    const visit = new Visit(await context.newPage())
    const { page, faults } = visit
    const origin = new URL(url).origin
    page.on('pageerror', (error) => faults.push(`error: ${error.message}`))
    page.on('console', (message) => {
      // A relay that was killed on purpose is no fault of the page.
      const { type, text } = { type: message.type(), text: message.text() }
      if (type === 'error' && !/Failed to load resource|net::ERR_/.test(text)) faults.push(`console: ${text}`)
    })
    page.on('dialog', (dialog) => {
      faults.push(`dialog: ${dialog.message()}`)
      void dialog.dismiss()
    })
    page.on('request', (request) => {
      const asked = request.url()
      if (!asked.startsWith(origin) && !/^(?:data|blob):/.test(asked)) faults.push(`foreign request: ${asked}`)
    })
    await page.goto(url)
    return visit
  }

  get question(): Locator {
    return this.page.getByRole('textbox', { name: 'Your question' })
  }

  get replies(): Locator {
    return this.page.locator('.reply')
  }

  async ready(): Promise<void> {
    await this.page.locator('.model select:not([disabled])').waitFor()
  }

  async ask(text: string): Promise<void> {
    await this.question.fill(text)
    await this.question.press('Enter')
    await until('the question', async () => (await this.question.inputValue()) === '')
  }

  /** Wait until the latest answer is there, whatever its end; gives its words. */
  async answered(): Promise<string> {
    const last = this.replies.last()
    await last.locator('footer').waitFor({ timeout: 45_000 })
    return (await last.locator('.words').innerText()).trim()
  }

  /** Wait until some of the latest answer is there. */
  async begun(letters = 20): Promise<void> {
    const words = this.replies.last().locator('.words')
    await until('the beginning of an answer', async () => (await words.innerText()).length >= letters)
  }

  async shot(name: string): Promise<void> {
    mkdirSync(SHOTS, { recursive: true })
    await this.page.screenshot({ path: `${SHOTS}/${name}.png` })
  }

  async close(): Promise<void> {
    await this.page.context().close()
    expect(this.faults).toEqual([])
  }
}

/** A voucher for a node, made as the how-to says, and who signed it. */
export async function vouched(home: string, node: string): Promise<{ issuer: string; voucher: string }> {
  const command = ['-m', 'tokenplace.cli.main', 'voucher', 'make', node]
  const env = { ...process.env, TOKEN_PLACE_STATE_DIR: home }
  const { stdout } = await promisify(execFile)(PYTHON, command, { env })
  const [body = ''] = stdout.split('.')
  const { issuer } = JSON.parse(Buffer.from(body, 'base64url').toString()) as { issuer: string }
  return { issuer, voucher: stdout.trim() }
}

/** No answer is open at any node of that relay. */
export async function idle(relay: string): Promise<boolean> {
  return (await nodesAt(relay)).every(({ free, slots }) => free === slots)
}
