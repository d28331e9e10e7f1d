/** The notice board in a real browser: what it shows, rating, offering, and that everybody can use it. */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import axe from 'axe-core'
import type { Browser } from 'playwright-core'
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest'
import { freePort } from '../../clients/typescript/tests/stage.ts'
import { DESKTOP, launch, nodesAt, PHONE, type Program, Stage, until, Visit } from './browser.ts'

let browser: Browser
let relay: Program
const stage = new Stage()
const folder = stage.folder()
const visits: Visit[] = []

async function open(options = DESKTOP as object, path = '/community'): Promise<Visit> {
  const visit = await Visit.open(browser, relay.url + path, options)
  visits.push(visit)
  await visit.page.locator('#now:not(:empty)').waitFor()
  await visit.page.locator('.card').first().waitFor()
  return visit
}

const queue = (): string => readFileSync(join(folder, 'contribution_queue.jsonl'), 'utf8')

beforeAll(async () => {
  browser = await launch()
  const port = await freePort()
  const url = `http://127.0.0.1:${port}`
  const environment = {
    TOKEN_PLACE_COMMUNITY_DIR: folder,
    TOKEN_PLACE_PROVIDER_REGISTRY: join(folder, 'servers.yaml'),
    TOKEN_PLACE_COMMUNITY_LIMIT: '0',
  }
  mkdirSync(folder, { recursive: true })
  writeFileSync(join(folder, 'servers.yaml'), 'providers: []\n')
  relay = stage.start(['relay', '--blind', '--port', String(port)], environment, url)
  await until('the relay', async () => (await fetch(`${url}/livez`)).ok)
  await stage.node([url])
  const [node] = await nodesAt(url)
  const markup = '<img src=x onerror=alert(1)>'
  const providers = [
    { id: 'ours', name: 'Our node', region: 'eu-west', node: node?.node, notes: markup },
    { id: 'far', name: 'Far away', region: 'asia', status: 'maintenance' },
    { id: 'bad', name: 'Bad link', region: 'x', endpoints: [{ type: 'relay', url: 'javascript:alert(1)' }] },
  ]
  writeFileSync(join(folder, 'providers.json'), JSON.stringify({ updated: null, providers }))
  writeFileSync(join(folder, 'model_feedback.jsonl'), '{"model_id": "tiny", "rating": 3, "votes": 2}\n')
})
afterEach(async () => {
  for (const visit of visits.splice(0)) await visit.close()
})
afterAll(async () => {
  await browser.close()
  await stage.close()
})

test('the directory shows who is really there, and words of strangers stay words', async () => {
  const { page } = await open()
  await expect.poll(() => page.locator('#now').innerText()).toContain('echo (1 node)')
  const [ours, far, bad] = await page.locator('.card').allInnerTexts()
  expect(ours).toMatch(/Our node[^]*online[^]*1 node connected/)
  expect(ours).toContain('<img src=x onerror=alert(1)>')
  expect(far).toContain('maintenance, says its entry')
  expect(bad).toContain('javascript:alert(1)')
  expect(await page.locator('.card a').count()).toBe(0)
})

test('a rating counts at once, and once a day', async () => {
  const { page } = await open()
  const form = page.locator('#rate')
  await form.getByRole('button').click()
  expect(await form.getByRole('alert').innerText()).toBe('Something is missing here.')
  await form.getByLabel('Model').fill('echo')
  await form.getByText('4', { exact: true }).click()
  await form.getByLabel('Comment').fill('quick')
  await form.getByRole('button').click()
  await expect.poll(() => form.getByRole('alert').innerText()).toContain('your comment waits for the operator')
  await expect.poll(() => page.locator('#entries').innerText()).toMatch(/echo\s+4\.00 of 5\s+1/)
  expect(await page.locator('#entries').innerText()).not.toContain('quick')
  await form.getByLabel('Model').fill('echo')
  await form.getByText('1', { exact: true }).click()
  await form.getByRole('button').click()
  await expect.poll(() => form.getByRole('alert').innerText()).toContain('You have rated this model today')
  expect(await form.getByLabel('Model').evaluate((field) => field === document.activeElement)).toBe(true)
})

test('a machine is offered with the keyboard alone', async () => {
  const { page } = await open()
  const form = page.locator('#offer')
  await form.getByLabel('Your name').focus()
  for (const words of ['Ada', 'eu-west', 'evenings', 'gpu, vision', 'one card']) {
    await page.keyboard.type(words)
    await page.keyboard.press('Tab')
  }
  await page.keyboard.press('Enter')
  await expect.poll(() => form.getByRole('alert').innerText()).toContain('contact')
  expect(await form.getByLabel('E-mail').evaluate((field) => field === document.activeElement)).toBe(true)
  await page.keyboard.type('ada@example.org')
  await page.keyboard.press('Enter')
  await expect
    .poll(() => form.getByRole('alert').innerText())
    .toMatch(/Thank you\. Your offer’s number is [0-9a-f-]{36}/)
  expect(JSON.parse(queue())).toMatchObject({
    operator_name: 'Ada',
    capabilities: ['gpu', 'vision'],
    contact: { email: 'ada@example.org' },
  })
  await expect.poll(() => page.locator('#offered').innerText()).toContain('1 machine has been offered')
})

test('there is a way from the chat to the board and back', async () => {
  const visit = await Visit.open(browser, relay.url)
  visits.push(visit)
  await visit.ready()
  await visit.page.getByRole('link', { name: /Community/ }).click()
  await visit.page.getByRole('heading', { name: 'Who lends machines' }).waitFor()
  await visit.page.getByRole('link', { name: 'Chat', exact: true }).click()
  await visit.ready()
})

for (const [name, options] of Object.entries({
  'a desktop': DESKTOP,
  'a phone': PHONE,
  'a phone in the dark': { ...PHONE, colorScheme: 'dark' },
})) {
  test(`on ${name} axe finds nothing and nothing is wider than the screen`, async () => {
    const visit = await open(options)
    await visit.page.evaluate(axe.source)
    const found = await visit.page.evaluate(async () => {
      const { violations } = await (globalThis as unknown as { axe: typeof axe }).axe.run()
      return violations.map(({ id, nodes }) => `${id}: ${nodes.map((node) => node.html).join(' ')}`)
    })
    expect(found).toEqual([])
    expect(await visit.page.evaluate(() => document.documentElement.scrollWidth <= innerWidth)).toBe(true)
    await visit.shot(`community-${name.replaceAll(' ', '-')}`)
  })
}
