/** The client against real relays and nodes. */
import { ed25519 } from '@noble/curves/ed25519.js'
import OpenAI from 'openai'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import {
  type Bookmark,
  type ChatStream,
  Client,
  createFetch,
  Memory,
  type News,
  NoNode,
  RelayUnreachable,
  type Sighting,
  Stopped,
  TokenPlaceError,
  UntrustedCard,
} from '../src/index.ts'
import { base64url, concat, utf8 } from '../src/wire/bytes.ts'
import { nodeIdOf } from '../src/wire/ids.ts'
import { freePort, nodesAt, type Program, Stage, until } from './stage.ts'

const stage = new Stage()
let relay: Program
let other: Program

const LONG = Array.from({ length: 200 }, (_, i) => `word${i}`).join(' ')
const asking = (content: string) => [{ role: 'user', content }]

async function textOf(stream: ChatStream): Promise<string> {
  let said = ''
  for await (const chunk of stream) said += chunk.choices[0]?.delta.content ?? ''
  return said
}

const free = async (): Promise<boolean> => (await nodesAt(relay.url)).every((node) => node.free === node.slots)

beforeAll(async () => {
  relay = await stage.relay()
  other = await stage.relay()
  await stage.node([relay.url, other.url], { delay: 0.02 })
})
afterAll(() => stage.close())

describe('chat', () => {
  test('an answer is streamed as OpenAI’s chunks', async () => {
    const client = new Client(relay.url)
    const stream = await client.chat.completions.create({ messages: asking('hello there'), stream: true })
    expect(await textOf(stream)).toBe('echo: hello there')
    expect(stream.answer.node).toMatch(/^[a-z2-7]{32}$/)
    expect(stream.answer.relay).toBe(relay.url)
    expect(stream.answer.usage?.completion_tokens).toBeGreaterThan(0)
  })

  test('an answer comes whole when no stream was asked for', async () => {
    const completion = await new Client(relay.url).chat.completions.create({
      model: 'echo',
      messages: asking('hi ⚘'),
    })
    expect(completion.choices[0]?.message.content).toBe('echo: hi ⚘')
    expect(completion.usage?.total_tokens).toBeGreaterThan(0)
  })

  test('what the node refuses is an error in OpenAI’s shape', async () => {
    const asked = new Client(relay.url).chat.completions.create({ model: 'echo', messages: [] })
    await expect(asked).rejects.toMatchObject({ name: 'ApiError', status: 400 })
  })

  test('a model that nobody serves is told with what is served', async () => {
    const asked = new Client(relay.url).chat.completions.create({ model: 'nothing', messages: asking('x') })
    await expect(asked).rejects.toThrow(NoNode)
    await expect(asked).rejects.toThrow(/echo/)
  })

  test('what is served is listed with what the card says of it', async () => {
    const [echo] = await new Client(relay.url).models()
    expect(echo).toMatchObject({ id: 'echo', nodes: 1, card: { context: 8192 } })
  })

  test('everything the relay saw is noted, and none of it is a word', async () => {
    const seen: Sighting[] = []
    const client = new Client(relay.url)
    const options = { onSighting: (sighting: Sighting) => seen.push(sighting) }
    const stream = await client.chat.completions.create(
      { model: 'echo', messages: asking('one two'), stream: true },
      options,
    )
    await textOf(stream)
    expect(seen[0]).toMatchObject({ what: 'directory', model: 'echo' })
    expect(seen[1]).toMatchObject({ what: 'submit', node: stream.answer.node, job: stream.answer.job })
    // header 40, enc 1120, secret 32, padded body 256, tag 16
    expect(seen[1]?.sent).toBe(40 + 1120 + 32 + 256 + 16)
    expect(seen.filter(({ what }) => what === 'record').length).toBeGreaterThan(3)
    expect(JSON.stringify(seen)).not.toContain('one two')
  })
})

describe('stopping', () => {
  test('an AbortSignal frees the node’s slot within a second', async () => {
    const stop = new AbortController()
    const client = new Client(relay.url)
    const create = client.chat.completions.create(
      { model: 'echo', messages: asking(LONG), stream: true },
      { signal: stop.signal },
    )
    const read = (async () => {
      for await (const _ of await create) if (!stop.signal.aborted) stop.abort()
    })()
    await expect(read).rejects.toThrow(Stopped)
    const stopped = performance.now()
    await until('a free slot', free)
    expect(performance.now() - stopped).toBeLessThan(1000)
  })

  test('leaving the loop stops the node too', async () => {
    const stream = await new Client(relay.url).chat.completions.create({ messages: asking(LONG), stream: true })
    for await (const _ of stream) break
    const stopped = performance.now()
    await until('a free slot', free)
    expect(performance.now() - stopped).toBeLessThan(1000)
  })

  test('a signal that was raised before asks nobody', async () => {
    const asked = new Client(relay.url).chat.completions.create(
      { messages: asking('x') },
      { signal: AbortSignal.abort() },
    )
    await expect(asked).rejects.toThrow(Stopped)
  })
})

describe('what breaks', () => {
  test('a relay that is away is passed over for the next', async () => {
    const dead = `http://127.0.0.1:${await freePort()}`
    const client = new Client([dead, relay.url])
    const completion = await client.chat.completions.create({ model: 'echo', messages: asking('hi') })
    expect(completion.choices[0]?.message.content).toBe('echo: hi')
  })

  test('no relay at all is an error of its own', async () => {
    const client = new Client(`http://127.0.0.1:${await freePort()}`)
    await expect(client.models()).rejects.toThrow(RelayUnreachable)
  })

  test('an answer is gone on with by another page, from its beginning', async () => {
    let bookmark: Bookmark | undefined
    const first = await new Client(relay.url).chat.completions.create(
      { messages: asking(LONG), stream: true },
      { onBookmark: (mark) => (bookmark = mark) },
    )
    let seen = 0
    for await (const _ of first) if (++seen === 20) break
    // left without a word, as a page that is reloaded
    expect(bookmark).toBeDefined()
    const kept = JSON.parse(JSON.stringify(bookmark)) as Bookmark
    await expect(new Client(relay.url).comeBackToChat(kept)).rejects.toThrow(TokenPlaceError) // it was cancelled
    let mark: Bookmark | undefined
    const second = await new Client(relay.url).chat.completions.create(
      { messages: asking(LONG), stream: true },
      { onBookmark: (each) => (mark = each) },
    )
    second.answer.leave()
    const back = await new Client(relay.url).comeBackToChat(mark as Bookmark)
    expect(await textOf(back)).toBe(`echo: ${LONG}`)
  })

  test('an answer goes on through another relay when its relay dies', async () => {
    const doomed = await stage.relay()
    await stage.node([doomed.url, other.url], { delay: 0.02 })
    const news: News[] = []
    const stream = await new Client([doomed.url, other.url]).chat.completions.create(
      { model: 'echo', messages: asking(LONG), stream: true },
      { onNews: (each) => news.push(each) },
    )
    let said = ''
    for await (const chunk of stream) {
      said += chunk.choices[0]?.delta.content ?? ''
      if (said.length > 100 && doomed.process.signalCode === null) await doomed.kill()
    }
    expect(said).toBe(`echo: ${LONG}`)
    expect(stream.answer.relay).toBe(other.url)
    expect(news.map(({ phase }) => phase)).toContain('returning')
  })
})

describe('trust', () => {
  test('a node is new, then known, and pinned when it is pinned', async () => {
    let kept: string | null = null
    const shelf = { load: () => kept, save: (text: string) => void (kept = text) }
    const ask = async (client: Client): Promise<ChatStream> => {
      const stream = await client.chat.completions.create({ messages: asking('hi'), stream: true })
      await textOf(stream)
      return stream
    }
    const first = await ask(new Client(relay.url, { memory: new Memory(shelf) }))
    expect(first.answer.standing).toBe('new')
    expect((await ask(new Client(relay.url, { memory: new Memory(shelf) }))).answer.standing).toBe('known')
    const pinned = await ask(new Client(relay.url, { pins: [(await nodesAt(relay.url))[0]?.node ?? ''] }))
    expect(pinned.answer.standing).toBe('pinned')
  })

  test('nobody but a pinned node is asked', async () => {
    const asked = new Client(relay.url, { pins: ['a'.repeat(32)] }).chat.completions.create({
      messages: asking('hi'),
    })
    await expect(asked).rejects.toThrow(NoNode)
    await expect(asked).rejects.toThrow(/pinned/)
  })

  test('a node is asked that somebody vouches for, while the voucher holds', async () => {
    const secret = ed25519.utils.randomSecretKey()
    const identity = concat(ed25519.getPublicKey(secret))
    const issuer = await nodeIdOf(identity)
    const nodes = (await nodesAt(relay.url)).map(({ node }) => node)
    const voucher = (fields: object): string => {
      const body = utf8(
        JSON.stringify({ v: 2, issuer, identity: base64url(identity), issued_ms: 0, nodes, ...fields }),
      )
      return `${base64url(body)}.${base64url(ed25519.sign(concat(utf8('tp/2 voucher\0'), body), secret))}`
    }
    const good = voucher({ expires_ms: Date.now() + 60_000 })
    const client = new Client(relay.url, { issuers: [issuer] })
    const ask = () => client.chat.completions.create({ messages: asking('hi'), stream: true })
    await expect(ask()).rejects.toThrow(UntrustedCard)
    const vouch = (by: Client, text: string) => by.trust.vouch(text)
    await expect(vouch(client, voucher({ expires_ms: 1 }))).rejects.toThrow(/expired/)
    const altered = `${base64url(utf8(atob(good.split('.')[0] ?? '').replace('"issued_ms":0', '"issued_ms":1')))}.${good.split('.')[1]}`
    await expect(vouch(client, altered)).rejects.toThrow(/not signed/)
    await expect(vouch(new Client(relay.url), good)).rejects.toThrow(/not among/)
    await vouch(client, good)
    const stream = await ask()
    expect(stream.answer.standing).toBe('vouched')
    await stream.close()
    const given = new Client(relay.url, { issuers: [issuer], vouchers: [good] })
    expect((await given.nodes('echo')).map(({ standing }) => standing)).toEqual(['vouched'])
  })

  test('a card that the relay altered is refused and nothing is sent', async () => {
    const asked: string[] = []
    const lying = async (url: string, init: RequestInit): Promise<Response> => {
      asked.push(init.method ?? '')
      const response = await fetch(url, init)
      const directory = (await response.json()) as { nodes: { card: string }[] }
      for (const listing of directory.nodes) {
        const [body = '', signature] = listing.card.split('.')
        const card = JSON.parse(Buffer.from(body, 'base64url').toString()) as { keys: { public: string }[] }
        for (const key of card.keys) key.public = Buffer.alloc(1216, 7).toString('base64url')
        listing.card = `${Buffer.from(JSON.stringify(card)).toString('base64url')}.${signature}`
      }
      return Response.json(directory)
    }
    const create = new Client(relay.url, { fetch: lying }).chat.completions.create({
      model: 'echo',
      messages: asking('hi'),
    })
    await expect(create).rejects.toThrow(UntrustedCard)
    expect(asked).toEqual(['GET'])
  })
})

describe('under the stock openai package', () => {
  const openai = () =>
    new OpenAI({ baseURL: 'https://nowhere.invalid/v1', apiKey: 'none', fetch: createFetch(new Client(relay.url)) })

  test('chat, streamed and whole', async () => {
    const stream = await openai().chat.completions.create({
      model: 'echo',
      messages: [{ role: 'user', content: 'over there' }],
      stream: true,
    })
    let said = ''
    for await (const chunk of stream) said += chunk.choices[0]?.delta.content ?? ''
    expect(said).toBe('echo: over there')
    const whole = await openai().chat.completions.create({
      model: 'echo',
      messages: [{ role: 'user', content: 'again' }],
    })
    expect(whole.choices[0]?.message.content).toBe('echo: again')
  })

  test('the list of models', async () => {
    const ids: string[] = []
    for await (const model of openai().models.list()) ids.push(model.id)
    expect(ids).toEqual(['echo'])
  })

  test('errors are its own kinds', async () => {
    const asked = openai().chat.completions.create({ model: 'nothing', messages: [{ role: 'user', content: 'x' }] })
    await expect(asked).rejects.toThrow(OpenAI.NotFoundError)
    const bad = openai().chat.completions.create({ model: 'echo', messages: [] })
    await expect(bad).rejects.toThrow(OpenAI.BadRequestError)
  })

  test('its abort frees the slot', async () => {
    const stream = await openai().chat.completions.create({
      model: 'echo',
      messages: [{ role: 'user', content: LONG }],
      stream: true,
    })
    for await (const _ of stream) {
      stream.controller.abort()
      break
    }
    const stopped = performance.now()
    await until('a free slot', free)
    expect(performance.now() - stopped).toBeLessThan(1000)
  })
})
