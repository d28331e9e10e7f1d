/** Every vector of spec/vectors/vouchers.json holds in TypeScript, and what may be asked follows from it. */
import { describe, expect, test } from 'vitest'
import { Client, Memory, parseNodeId } from '../src/index.ts'
import { verifyVoucher } from '../src/sealing/identity.ts'
import type { NodeId } from '../src/wire/ids.ts'
import { parseVoucher } from '../src/wire/voucher.ts'
import { Trust } from '../src/client/trust.ts'
import { codeOf, read } from './vectors.ts'

interface Vector {
  name: string
  text: string
  now_ms: number
}
interface File {
  issuer: NodeId
  good: (Vector & { issuer: string; nodes: string[] })[]
  bad: (Vector & { code: string })[]
}

const VOUCHERS = read('vouchers.json') as File
const issuers = new Set([VOUCHERS.issuer])
const plain = VOUCHERS.good[0] as File['good'][0]
const [first, second, third] = plain.nodes.map(parseNodeId) as [NodeId, NodeId, NodeId]

describe('a voucher', () => {
  test.each(VOUCHERS.good)('is believed: $name', async ({ text, now_ms, issuer, nodes }) => {
    const voucher = await verifyVoucher(text, issuers, now_ms)
    expect([voucher.issuer, [...voucher.nodes]]).toEqual([issuer, nodes])
  })

  test.each(VOUCHERS.bad)('is refused: $name', async ({ text, now_ms, code }) => {
    expect(await codeOf(() => verifyVoucher(text, issuers, now_ms))).toBe(code)
  })

  test.each([
    ['a stray bit at the end of its signature', `${plain.text.slice(0, -1)}x`],
    ['padding', `${plain.text}==`],
    ['a third part', `${plain.text}.AAAA`],
    ['a space in it', plain.text.replace('.', '. ')],
  ])('has one spelling only: not one with %s', async (_, text) => {
    expect(await codeOf(() => parseVoucher(text))).toBe('bad_format')
  })

  test('may be pasted with white space around it, but not be endless', async () => {
    expect((await parseVoucher(`\n ${plain.text}\n`)).issuer).toBe(VOUCHERS.issuer)
    expect(await codeOf(() => parseVoucher(plain.text + 'A'.repeat(64 * 1024)))).toBe('too_large')
  })
})

describe('trust', () => {
  test('in an issuer reaches as far as the issuer’s vouchers, and as long', async () => {
    let now = plain.now_ms
    const trust = new Trust([], issuers, new Memory(), () => now)
    expect(trust.admits(first)).toBe(false)
    await trust.vouch(VOUCHERS.good[1]?.text ?? '') // the first node only
    expect([trust.standing(first), trust.admits(first)]).toEqual(['vouched', true])
    expect([trust.standing(second), trust.admits(second)]).toEqual(['new', false])
    await trust.vouch(plain.text)
    expect(trust.named).toEqual([first, second, third])
    now += 365 * 86_400_000
    expect([trust.named, trust.admits(first)]).toEqual([[], false])
  })

  test('ends when the issuer is no longer trusted, or forgotten', async () => {
    const trust = new Trust([second], issuers, new Memory(), () => plain.now_ms)
    await trust.vouch(plain.text)
    trust.issuers = new Set()
    expect(trust.named).toEqual([second])
    trust.issuers = issuers
    expect(trust.standing(first)).toBe('vouched')
    trust.unvouch(VOUCHERS.issuer)
    expect([trust.named, trust.standing(first)]).toEqual([[second], 'new'])
  })
})

test('a client that was given a bad voucher asks nobody', async () => {
  const asked: string[] = []
  const fetch = (url: string): Promise<Response> => {
    asked.push(url)
    return Promise.resolve(Response.json({ nodes: [], models: {} }))
  }
  const client = new Client('http://relay.test', { issuers: [VOUCHERS.issuer], vouchers: [plain.text], fetch })
  const question = { model: 'echo', messages: [] }
  expect(await codeOf(() => client.chat.completions.create(question))).toBe('untrusted_card') // it has expired
  expect(asked).toEqual([])
})
