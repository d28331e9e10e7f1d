/** The client of the original's protocol, against a real relay, its gateway and a node; and Python at the other end. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import {
  ClassicClient,
  type ClassicEvent,
  ClassicKey,
  ClassicPublicKey,
  ClassicStreamOpener,
  ClassicStreamSealer,
  Envelope,
  openClassic,
  RelayUnreachable,
  sealClassic,
  Stopped,
} from '../src/classic.ts'
import { base64, text, unbase64, utf8 } from '../src/wire/bytes.ts'
import { PythonEnd } from './python-end.ts'
import { freePort, nodesAt, type Program, Stage, until } from './stage.ts'
import { codeOf } from './vectors.ts'

const OPERATOR = 'a token of the operator'
const LONG = Array.from({ length: 200 }, (_, i) => `word${i}`).join(' ')
const stage = new Stage()
let relay: Program
let key: ClassicKey

/** A client, and the bodies of all that it sends and is told. */
function watched() {
  const bodies: string[] = []
  const watch = async (url: string, init: RequestInit): Promise<Response> => {
    bodies.push(typeof init.body === 'string' ? init.body : '')
    const response = await fetch(url, init)
    bodies.push(await response.clone().text())
    return response
  }
  return { client: new ClassicClient(relay.url, { key, fetch: watch }), bodies }
}

async function wordsOf(events: AsyncIterable<ClassicEvent>): Promise<string> {
  let said = ''
  for await (const each of events) {
    expect(each.event).toBe('delta')
    if (each.event === 'delta') said += each.data.choices[0]?.delta.content ?? ''
  }
  return said
}

beforeAll(async () => {
  key = await ClassicKey.generate()
  const environment = { TOKEN_PLACE_OPERATOR_TOKEN: OPERATOR }
  relay = await stage.relay(0, { blind: false, environment })
  await stage.node([relay.url], { delay: 0.01, environment })
  await until('a classic key', async () => (await fetch(`${relay.url}/api/v1/public-key`)).ok)
  await until(
    'a server',
    async () => 'server_public_key' in Object(await (await fetch(`${relay.url}/next_server`)).json()),
  )
})
afterAll(() => stage.close())

describe('through the relay', () => {
  test('a message is answered with the conversation, and nobody between reads a word', async () => {
    const { client, bodies } = watched()
    const conversation = await client.sendChatMessage('what is this ⚘')
    expect(conversation).toEqual([
      { role: 'user', content: 'what is this ⚘' },
      { role: 'assistant', content: 'echo: what is this ⚘' },
    ])
    const more = [...conversation, { role: 'user', content: 'and that' }]
    expect((await client.sendChatMessage(more)).at(-1)?.content).toBe('echo: and that')
    expect(bodies.join()).not.toContain('what is')
  })

  test('an answer comes in pieces', async () => {
    expect(await wordsOf(watched().client.streamChatMessage('one two three'))).toBe('echo: one two three')
  })

  const free = async () => (await nodesAt(relay.url)).every(({ free, slots }) => free === slots)

  test('leaving the pieces frees the node', async () => {
    for await (const _ of watched().client.streamChatMessage(LONG)) break
    await until('a free slot', free)
  })

  test('a signal stops the waiting, and frees the node', async () => {
    const stop = new AbortController()
    const asked = watched().client.sendChatMessage(LONG, { signal: stop.signal })
    await until('the node at work', async () => !(await free()))
    stop.abort()
    await expect(asked).rejects.toThrow(Stopped)
    await until('a free slot', free)
  })

  test('a relay of the original, which names no question, is polled', async () => {
    const bodies: Record<string, unknown>[] = []
    const original = async (url: string, init: RequestInit): Promise<Response> => {
      if (init.method === 'GET') return fetch(url, init)
      // As that relay would: what it does not know is dropped on the way in, and nothing is named on the way out.
      const { bound: _, ...known } = JSON.parse(String(init.body)) as Record<string, unknown>
      bodies.push(known)
      const response = await fetch(url, { ...init, body: JSON.stringify(known) })
      if (!url.endsWith('/faucet')) return response
      const { message } = (await response.json()) as { message: string }
      return Response.json({ message })
    }
    const client = new ClassicClient(relay.url, { fetch: original })
    expect((await client.sendChatMessage('as ever')).at(-1)?.content).toBe('echo: as ever')
    expect(Object.keys(bodies.at(-1) ?? {})).toEqual(['client_public_key'])
  })

  test('a server that is no more is left for one that is there', async () => {
    const { client } = watched()
    const gone = (await ClassicKey.generate()).public
    const key = await client.fetchServerPublicKey()
    const lying = async (url: string, init: RequestInit): Promise<Response> => {
      if (!url.endsWith('/next_server') || lies-- <= 0) return fetch(url, init)
      return Response.json({ server_public_key: gone.wire })
    }
    let lies = 1
    const misled = new ClassicClient(relay.url, { fetch: lying })
    expect((await misled.sendChatMessage('still there')).at(-1)?.content).toBe('echo: still there')
    expect(misled.serverPublicKey?.keyId).toBe(key.keyId)
  })
})

describe('through the API', () => {
  const hello = [{ role: 'user', content: 'Hello you' }]

  test('an encrypted completion is opened', async () => {
    const { client, bodies } = watched()
    const completion = await client.sendApiRequest(hello, { model: 'echo' })
    expect(completion.choices[0]?.message.content).toBe('echo: Hello you')
    expect(completion.usage?.total_tokens).toBeGreaterThan(0)
    expect(bodies.join()).not.toContain('Hello')
  })

  test('an encrypted stream is opened piece by piece, up to its end', async () => {
    expect(await wordsOf(watched().client.streamChatCompletion(hello, { model: 'echo' }))).toBe('echo: Hello you')
  })

  test('what the gateway refuses has its code', async () => {
    const { client } = watched()
    expect(await codeOf(() => client.sendApiRequest(hello, { model: 'nothing' }))).toBe('model_not_found')
  })

  test('what was sealed before the key was rotated is still opened', async () => {
    const { client } = watched()
    const old = await client.fetchServerPublicKey('/api/v1/public-key')
    const headers = { 'x-token-place-operator': OPERATOR }
    const rotated = await fetch(`${relay.url}/api/v1/public-key/rotate`, { method: 'POST', headers })
    expect(rotated.status).toBe(200)
    const answered = await client.sendApiRequest(hello, { model: 'echo' })
    expect(answered.choices[0]?.message.content).toBe('echo: Hello you')
    expect((await watched().client.fetchServerPublicKey('/api/v1/public-key')).keyId).not.toBe(old.keyId)
  })

  test.each(['whole', 'stream'])(
    'a key that nobody has is replaced by the one that the refusal brings: %s',
    async (way) => {
      const gone = (await ClassicKey.generate()).public
      const told: string[] = []
      const lying = async (url: string, init: RequestInit): Promise<Response> => {
        if (url.endsWith('/public-key')) return Response.json({ public_key: gone.wire })
        const response = await fetch(url, init)
        if (!response.ok) told.push(await response.clone().text())
        return response
      }
      const client = new ClassicClient(relay.url, { key, fetch: lying })
      const answer =
        way === 'whole'
          ? (await client.sendApiRequest(hello, { model: 'echo' })).choices[0]?.message.content
          : await wordsOf(client.streamChatCompletion(hello, { model: 'echo' }))
      expect(answer).toBe('echo: Hello you')
      expect(told.length).toBe(1)
      expect(told[0]).toContain('key_expired')
      expect(client.serverPublicKey?.keyId).not.toBe(gone.keyId)
    },
  )

  test('a stream that is cut off, or comes in the open, is an error', async () => {
    const answer = (lines: string) => () =>
      Promise.resolve(new Response(lines, { headers: { 'content-type': 'text/event-stream' } }))
    const read = async (lines: string) => {
      const client = new ClassicClient(relay.url, {
        key,
        fetch: (url, init) => (url.endsWith('completions') ? answer(lines)() : fetch(url, init)),
      })
      for await (const _ of client.streamChatCompletion(hello, { model: 'echo' }));
    }
    const sealer = await ClassicStreamSealer.to(key.public)
    const piece = async () => ({
      event: 'delta',
      encrypted: true,
      data: (await sealer.seal(utf8('{"choices":[]}'))).fields(),
    })
    const sealed = `data: ${JSON.stringify(await piece())}\n\n`
    expect(await codeOf(() => read(`${sealed}data: [DONE]\n\n`))).toBe(null)
    expect(await codeOf(() => read(sealed))).toBe('truncated')
    expect(await codeOf(() => read(`${sealed}${sealed}data: [DONE]\n\n`))).toBe('bad_record')
    expect(await codeOf(() => read('data: {"choices":[]}\n\ndata: [DONE]\n\n'))).toBe('bad_record')
    expect(await codeOf(() => read('data: {"event":"error","reason":"serialization_failed"}\n\n'))).toBe(
      'serialization_failed',
    )
  })
})

test('a relay that is away is an error of its own, and so is an address that is none', async () => {
  const away = new ClassicClient(`http://127.0.0.1:${await freePort()}`, { key })
  await expect(away.sendChatMessage('hello')).rejects.toThrow(RelayUnreachable)
  expect(await codeOf(() => new ClassicClient('relay.example'))).toBe('bad_format')
})

describe('Python at the other end', () => {
  const python = new PythonEnd()
  afterAll(() => python.close())
  const cases = (['CBC', 'GCM'] as const).flatMap((mode) =>
    [0, 15, 16, 5000].map((size) => ({ mode, size, context: mode === 'GCM' && size > 15 ? 'context' : '' })),
  )
  const wordsOfSize = (size: number) => Uint8Array.from({ length: size }, (_, i) => (i * 37) & 0xff)

  test.each(cases)('opens what is sealed here: $mode, $size bytes', async ({ mode, size, context }) => {
    const { key: theirs } = await python.ask({ do: 'classic key' })
    const to = await ClassicPublicKey.parse(String(theirs))
    const associatedData = utf8(context)
    const sealer = await ClassicStreamSealer.to(to, { mode, associatedData })
    const pieces = [wordsOfSize(size), utf8('second')]
    const sealed = [await sealer.seal(pieces[0] as never), await sealer.seal(pieces[1] as never)]
    const alone = await sealClassic(wordsOfSize(size), to, { mode, associatedData })
    const opened = await python.ask({
      do: 'classic open',
      context,
      stream: sealed.map((each) => each.fields()),
      alone: alone.fields(),
    })
    expect(opened).toEqual({ stream: pieces.map(base64), alone: base64(wordsOfSize(size)) })
  })

  test.each(cases)('seals what is opened here: $mode, $size bytes', async ({ mode, size, context }) => {
    const words = wordsOfSize(size)
    const sealed = await python.ask({ do: 'classic seal', key: key.public.wire, mode, context, words: base64(words) })
    const opener = new ClassicStreamOpener(key, { associatedData: utf8(context) })
    const pieces = sealed['stream'] as object[]
    expect(base64(await opener.open(Envelope.parse(pieces[0] ?? {})))).toBe(base64(words))
    expect(text(await opener.open(Envelope.parse(pieces[1] ?? {})))).toBe('second')
    const envelope = Envelope.parse(sealed['alone'] as object)
    expect(await openClassic(envelope, key, { associatedData: utf8(context) })).toEqual(unbase64(base64(words)))
  })
})
