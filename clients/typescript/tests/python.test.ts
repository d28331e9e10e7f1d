/** TypeScript seals and Python opens, and the other way round. */
import { afterAll, expect, test } from 'vitest'
import { sealRequest } from '../src/sealing/exchange.ts'
import { concat, hex, utf8 } from '../src/wire/bytes.ts'
import { RecordKind, RecordSplitter, type StreamRecord } from '../src/wire/stream.ts'
import { openRequest, sealAnswer } from './node-end.ts'
import { PythonEnd } from './python-end.ts'
import { bytes, VECTORS } from './vectors.ts'

const python = new PythonEnd()
const ask = (question: object) => python.ask(question)
afterAll(() => python.close())

const SIZES = [0, 1, 252, 253, 5000, 100_000]
const cases = VECTORS.keys.flatMap((key) => SIZES.map((size) => ({ key, size, name: `${key.name}, ${size} bytes` })))
const bodyOf = (size: number) => Uint8Array.from({ length: size }, (_, i) => (i * 37) & 0xff)

test.each(cases)('sealed in TypeScript, opened and answered in Python: $name', async ({ key, size }) => {
  const body = bodyOf(size)
  const sealingKey = { kem: key.kem, publicKey: bytes(key.public), notBeforeMs: 0, notAfterMs: 2 * Date.now() }
  const { sealed, pending } = await sealRequest(body, sealingKey, Date.now())
  const data = [utf8('one'), bodyOf(16_000)]
  const question = { do: 'open', kem: key.kem, private: key.private, sealed: hex(sealed), data: data.map(hex) }
  const answer = await ask(question)
  expect(answer['body']).toBe(hex(body))
  const [nonce, ...records] = new RecordSplitter().feed(bytes(String(answer['wire']))) as [
    StreamRecord,
    ...StreamRecord[],
  ]
  const opener = await pending.accept(nonce.payload)
  const opened: string[] = []
  for (const record of records) opened.push(hex(await opener.open(record)))
  opener.finish()
  expect(opened).toEqual([hex(utf8('head')), ...data.map(hex), hex(utf8('{}'))])
})

test.each(cases)('sealed in Python, opened and answered in TypeScript: $name', async ({ key, size }) => {
  const body = bodyOf(size)
  const { sealed } = await ask({ do: 'seal', kem: key.kem, public: key.public, body: hex(body) })
  const opened = await openRequest(bytes(String(sealed)), key)
  expect(hex(opened.body)).toBe(hex(body))
  const data = ['head', 'piece', '{}'].map(utf8)
  const kinds = [RecordKind.HEAD, RecordKind.DATA, RecordKind.FINAL]
  const records = data.map((each, i) => ({ kind: kinds[i] ?? RecordKind.DATA, data: each }))
  const wire = await sealAnswer(opened, crypto.getRandomValues(new Uint8Array(32)), records)
  const { data: read } = await ask({ do: 'read', wire: hex(concat(...wire)) })
  expect(read).toEqual(data.map(hex))
})
