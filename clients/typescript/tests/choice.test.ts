/** Which node is asked, against a real relay with two nodes. What is refused here is refused on the way to that relay. */
import { spawnSync } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { Client, JobFailed, NoNode, Refused } from '../src/index.ts'
import { servedAs } from '../src/openai/names.ts'
import { concat, utf8 } from '../src/wire/bytes.ts'
import { RecordKind, STREAM_TYPE } from '../src/wire/stream.ts'
import { nodesAt, type Program, PYTHON, Stage } from './stage.ts'

const stage = new Stage()
let relay: Program
const question = { model: 'echo', messages: [{ role: 'user', content: 'hi' }], stream: true } as const

beforeAll(async () => {
  relay = await stage.relay()
  await stage.node([relay.url])
  await stage.node([relay.url])
})
afterAll(() => stage.close())

const full = (): Response => {
  const error = { message: 'Too many wait for this node.', code: 'queue_full' }
  return Response.json({ error }, { status: 429, headers: { 'retry-after': '2' } })
}

/** What a relay answers when a job ends before its first record. */
const ended = (code: string) => (): Response => {
  const told = utf8(JSON.stringify({ code, message: 'A sentence.' }))
  const prefix = new Uint8Array(5)
  new DataView(prefix.buffer).setUint32(0, told.length)
  prefix[4] = RecordKind.OUTCOME
  return new Response(concat(prefix, told), { headers: { 'content-type': STREAM_TYPE } })
}

/** A client on whose way some requests are answered by `answer`; `asked` has the addresses of all. */
function watched(refuse: (url: URL) => boolean, options: object = {}, answer: () => Response = full) {
  const asked: URL[] = []
  const methods: (string | undefined)[] = []
  const watch = (address: string, init: RequestInit): Promise<Response> => {
    const url = new URL(address)
    asked.push(url)
    methods.push(init.method)
    if (init.method !== 'POST' || !refuse(url)) return fetch(address, init)
    return Promise.resolve(answer())
  }
  const client = new Client(relay.url, { fetch: watch, ...options })
  const posted = () => asked.filter(({ pathname }) => pathname === '/relay/v2/jobs').map(nodeOf)
  return { client, asked, posted, methods }
}

const nodeOf = (url: URL): string => url.searchParams.get('node') ?? ''

describe('a full queue', () => {
  test('sends the question to another node', async () => {
    let refused = ''
    const { client, posted } = watched((url) => (refused ||= nodeOf(url)) === nodeOf(url))
    const stream = await client.chat.completions.create(question)
    for await (const _ of stream);
    expect(posted()).toEqual([refused, stream.answer.node])
    expect(stream.answer.node).not.toBe(refused)
  })

  test('is never asked twice: when all are full, that is said', async () => {
    const { client, posted, methods } = watched(() => true)
    const refused = await client.chat.completions.create(question).catch((error: unknown) => error)
    expect(refused).toBeInstanceOf(Refused)
    expect(refused).toMatchObject({ code: 'queue_full', status: 429, retryAfter: 2 })
    expect(posted().sort()).toEqual((await nodesAt(relay.url)).map(({ node }) => node).sort())
    expect(methods).not.toContain('DELETE') // no queue took it, so there is nothing to cancel
  })
})

describe.each(['engine_failed', 'engine_full', 'queue_timeout'])('a node at which a question ends as %s', (code) => {
  test('is left for another', async () => {
    let refused = ''
    const { client, posted } = watched((url) => (refused ||= nodeOf(url)) === nodeOf(url), {}, ended(code))
    const stream = await client.chat.completions.create(question)
    for await (const _ of stream);
    expect(posted()).toEqual([refused, stream.answer.node])
    expect(stream.answer.node).not.toBe(refused)
  })

  test('is never asked twice: when nobody else is left, that is said', async () => {
    const { client, posted } = watched(() => true, {}, ended(code))
    const lost = await client.chat.completions.create(question).catch((error: unknown) => error)
    expect(lost).toBeInstanceOf(JobFailed)
    expect(lost).toMatchObject({ code, message: 'A sentence.' })
    expect(posted().sort()).toEqual((await nodesAt(relay.url)).map(({ node }) => node).sort())
  })
})

test('questions that are asked together are spread over the nodes with free slots', async () => {
  const busy = await stage.relay()
  for (let i = 0; i < 3; i++) await stage.node([busy.url], { slots: 1, delay: 0.2 })
  const asked: URL[] = []
  const watch = (address: string, init: RequestInit): Promise<Response> => {
    if (init.method === 'POST' || address.includes('/nodes')) asked.push(new URL(address))
    return fetch(address, init)
  }
  const client = new Client(busy.url, { fetch: watch })
  const streams = Array.from({ length: 6 }, () => client.chat.completions.create(question))
  await Promise.all(streams.map(async (stream) => (await stream).answer.close()))
  const nodes = asked.filter(({ pathname }) => pathname === '/relay/v2/jobs').map(nodeOf)
  expect([...new Set(nodes)].map((node) => nodes.filter((each) => each === node).length)).toEqual([2, 2, 2])
  expect(asked.filter(({ pathname }) => pathname.endsWith('/nodes')).length).toBe(1)
}, 60_000)

test('who comes back too often waits as long as it is told, and loses nothing', async () => {
  const slow = await stage.relay()
  await stage.node([slow.url], { delay: 0.02 })
  const came: number[] = []
  /** The relay's answer, cut off after some pieces. */
  const cut = (response: Response): Response => {
    let pieces = 0
    const body = response.body?.pipeThrough(
      new TransformStream<Uint8Array, Uint8Array>({
        transform(piece, controller) {
          if (++pieces > 3) controller.error(new Error('cut'))
          else controller.enqueue(piece)
        },
      }),
    )
    return new Response(body, { headers: response.headers })
  }
  const watch = async (address: string, init: RequestInit): Promise<Response> => {
    if (init.method === 'POST') return cut(await fetch(address, init))
    if (!address.includes('/jobs/')) return fetch(address, init)
    came.push(performance.now())
    return came.length === 1 ? full() : fetch(address, init)
  }
  const words = Array.from({ length: 30 }, (_, i) => `word${i}`).join(' ')
  const client = new Client(slow.url, { fetch: watch })
  const stream = await client.chat.completions.create({
    ...question,
    messages: [{ role: 'user', content: words }],
  })
  let text = ''
  for await (const chunk of stream) text += chunk.choices[0]?.delta.content ?? ''
  expect(text).toBe(`echo: ${words}`)
  expect(came.length).toBe(2)
  expect((came[1] as number) - (came[0] as number)).toBeGreaterThanOrEqual(1900)
}, 60_000)

test('a sticky client asks the node again that answered it, and the relay is told', async () => {
  const { client, asked } = watched(() => false, { sticky: true })
  const answered = new Set<string>()
  for (let i = 0; i < 6; i++) {
    const stream = await client.chat.completions.create(question)
    for await (const _ of stream);
    answered.add(stream.answer.node)
  }
  expect(answered.size).toBe(1)
  expect(asked.filter(({ searchParams }) => answered.has(searchParams.get('prefer') ?? '')).length).toBeGreaterThan(0)
})

test('pinned nodes are looked for by name', async () => {
  const [pinned] = await nodesAt(relay.url)
  const { client, asked, posted } = watched(() => false, { pins: [pinned?.node] })
  for await (const _ of await client.chat.completions.create(question));
  expect(nodeOf(asked[0] as URL)).toBe(pinned?.node)
  expect(posted()).toEqual([pinned?.node])
})

describe('a name', () => {
  test('of the table is what the catalogue says', () => {
    const script = fileURLToPath(new URL('../scripts/names.py', import.meta.url))
    const { status, stderr } = spawnSync(PYTHON, [script, '--check'], { encoding: 'utf8' })
    expect([status, stderr]).toEqual([0, ''])
  })

  test.each([
    ['gpt-5-chat-latest', 'llama-3-8b-instruct'],
    ['llama-3-8b-instruct:alignment', 'llama-3-8b-instruct'],
    ['echo', 'echo'],
    ['constructor', 'constructor'],
  ])('%s is looked for as %s', async (name, base) => {
    expect(servedAs(name)).toBe(base)
    const { client, asked } = watched(() => false)
    await client.ask('/v1/chat/completions', { ...question, model: name }).then(
      (answer) => answer.close(),
      (error: unknown) => expect(error).toBeInstanceOf(NoNode),
    )
    expect(asked[0]?.searchParams.get('model')).toBe(base)
  })

  test('does not matter where any node will do', async () => {
    const { client, asked } = watched(() => false)
    const answer = await client.ask('/v1/images/generations', { model: 'whatever', prompt: 'a tree' })
    await answer.close()
    expect(asked[0]?.searchParams.has('model')).toBe(false)
  })
})
