/** Every vector of spec/vectors/exchange.json holds in TypeScript. */
import { describe, expect, test } from 'vitest'
import { answerKeys, PendingAnswer, sealRequest } from '../src/sealing/exchange.ts'
import { verify } from '../src/sealing/hpke.ts'
import { verifyCard } from '../src/sealing/identity.ts'
import { recordSize, requestSize, unpadRecord, unpadRequest } from '../src/sealing/padding.ts'
import { hex, utf8 } from '../src/wire/bytes.ts'
import { parseCard } from '../src/wire/card.ts'
import { type JobId, type NodeId, nodeIdOf } from '../src/wire/ids.ts'
import { keyIdOf, packHeader, parseHeader } from '../src/wire/request.ts'
import { ELSEWHERE, FOR_ANOTHER_NODE, lost, NOT_TWICE } from '../src/client/attempt.ts'
import { isSealed, RecordKind, RecordSplitter, type StreamRecord } from '../src/wire/stream.ts'
import { openRequest, publicOf, ReplayGuard, sealAnswer } from './node-end.ts'
import { type AnswerVector, byName, bytes, codeOf, edited, read, VECTORS } from './vectors.ts'

const keyOf = (name: string) => byName(VECTORS.keys, name)
const requestOf = (name: string) => byName(VECTORS.requests, name)
const asker = (answer: AnswerVector) =>
  new PendingAnswer(requestOf(answer.request).request_id as JobId, bytes(answer.enc), bytes(answer.response_secret))

describe('padding', () => {
  test.each(VECTORS.padding.request_sizes)('a request of $data bytes takes $padded', ({ data, padded }) => {
    expect(requestSize(data)).toBe(padded)
  })
  test.each(VECTORS.padding.record_sizes)('a record of $data bytes takes $padded', ({ data, padded }) => {
    expect(recordSize(data)).toBe(padded)
  })
  test.each(VECTORS.padding.request_faults)('a request is refused: $name', async ({ padded, expect: code }) => {
    expect(await codeOf(() => unpadRequest(bytes(padded)))).toBe(code)
  })
  test.each(VECTORS.padding.record_faults)('a record is refused: $name', async ({ padded, expect: code }) => {
    expect(await codeOf(() => unpadRecord(bytes(padded)))).toBe(code)
  })
})

describe('requests', () => {
  test.each(VECTORS.keys)('$name has the recorded public half and id', async (key) => {
    expect(await publicOf(key)).toEqual({ publicKey: key.public, keyId: key.key_id })
    expect(hex(await keyIdOf(key.kem, bytes(key.public)))).toBe(key.key_id)
  })
  test.each(VECTORS.requests)('$name opens', async (vector) => {
    const opened = await openRequest(bytes(vector.sealed), keyOf(vector.key))
    expect(hex(opened.body)).toBe(vector.body)
    expect(hex(opened.secret)).toBe(vector.response_secret)
    expect(hex(opened.enc)).toBe(vector.enc)
    expect(hex(packHeader(opened.header))).toBe(vector.header)
    expect(opened.header.timeMs).toBe(vector.time_ms)
    expect(requestSize(opened.body.length)).toBe(vector.padded_size)
  })
  test.each(VECTORS.requests)('our seal of $name opens and has the same size', async (vector) => {
    const key = keyOf(vector.key)
    const body = bytes(vector.body)
    const sealingKey = {
      kem: key.kem,
      publicKey: bytes(key.public),
      notBeforeMs: key.not_before_ms,
      notAfterMs: key.not_after_ms,
    }
    const { sealed, pending } = await sealRequest(body, sealingKey, vector.time_ms)
    const opened = await openRequest(sealed, key)
    expect(hex(opened.body)).toBe(vector.body)
    expect(hex(opened.header.requestId)).toBe(pending.job)
    expect(sealed.length).toBe(vector.sealed.length / 2)
  })
  test.each(VECTORS.request_faults)('${base}: $name', async (fault) => {
    const key = keyOf(requestOf(fault.base ?? 'x25519: chat').key)
    for (const sealed of edited(fault)) expect(await codeOf(() => openRequest(sealed, key))).toBe(fault.expect)
  })
})

describe('the clock', () => {
  const header = parseHeader(bytes(requestOf(VECTORS.clock.request).sealed))
  test.each(VECTORS.clock.fresh)('$name', async ({ now_ms, expect: code }) => {
    expect(await codeOf(() => new ReplayGuard().admit(header, now_ms))).toBe(code)
  })
  test.each(VECTORS.clock.replayed)('$name', async ({ at_ms, expect: codes }) => {
    const guard = new ReplayGuard()
    for (const [i, at] of at_ms.entries()) expect(await codeOf(() => guard.admit(header, at))).toBe(codes[i])
  })
})

describe('answers', () => {
  test.each(VECTORS.answers)('$name opens', async (vector) => {
    const keys = await answerKeys(bytes(vector.enc), bytes(vector.nonce), bytes(vector.response_secret))
    expect([hex(keys.key), hex(keys.baseNonce)]).toEqual([vector.key, vector.base_nonce])
    const stream = bytes(vector.nonce_record + vector.records.map((each) => each.wire).join(''))
    const [nonce, ...records] = new RecordSplitter().feed(stream)
    expect(nonce?.kind).toBe(RecordKind.NONCE)
    const opener = await asker(vector).accept(bytes(vector.nonce))
    for (const [i, expected] of vector.records.entries()) {
      expect(opener.nextNumber).toBe(expected.number)
      expect(hex(await opener.open(records[i] as StreamRecord))).toBe(expected.data)
    }
    opener.finish()
    expect(opener.ended).toBe(true)
  })
  test.each(VECTORS.answers)('$name is the same records at any cut', (vector) => {
    const stream = bytes(vector.nonce_record + vector.records.map((each) => each.wire).join(''))
    const whole = new RecordSplitter().feed(stream)
    const splitter = new RecordSplitter()
    const cut: StreamRecord[] = []
    for (let at = 0; at < stream.length; at += 7) cut.push(...splitter.feed(stream.slice(at, at + 7)))
    expect(cut).toEqual(whole)
  })
  test.each(VECTORS.answers)('$name is sealed byte for byte', async (vector) => {
    const opened = await openRequest(bytes(requestOf(vector.request).sealed), keyOf(requestOf(vector.request).key))
    const records = vector.records.map(({ kind, data }) => ({ kind, data: bytes(data) }))
    const [nonce, ...wire] = await sealAnswer(opened, bytes(vector.nonce), records)
    expect(nonce && hex(nonce)).toBe(vector.nonce_record)
    expect(wire.map(hex)).toEqual(vector.records.map((each) => each.wire))
  })
  test.each(VECTORS.answers)('$name opens with the request that was saved and restored', async (vector) => {
    const opener = await PendingAnswer.restore(asker(vector).save()).accept(bytes(vector.nonce))
    const [first] = new RecordSplitter().feed(bytes(vector.records[0]?.wire ?? ''))
    expect(hex(await opener.open(first as StreamRecord))).toBe(vector.records[0]?.data)
  })
  test.each(VECTORS.answer_faults)('$base: $name', async (vector) => {
    const [nonce, ...records] = vector.wire.flatMap((wire) => new RecordSplitter().feed(bytes(wire)))
    let opens = 0
    const read = async (): Promise<void> => {
      const opener = await asker(byName(VECTORS.answers, vector.base)).accept((nonce as StreamRecord).payload)
      try {
        for (const record of records.filter(({ kind }) => isSealed(kind))) {
          await opener.open(record)
          opens++
        }
        opener.finish()
      } catch (error) {
        if ((await codeOf(() => Promise.reject(error))) === 'bad_record') {
          for (const record of records) expect(await codeOf(() => opener.open(record))).toBe('bad_record')
          expect(await codeOf(() => opener.finish())).toBe('bad_record')
        }
        throw error
      }
    }
    expect(await codeOf(read)).toBe(vector.expect)
    expect(opens).toBe(vector.opens)
  })
})

describe('cards', () => {
  test.each(VECTORS.cards.identities)('the id of $name follows from its identity', async (identity) => {
    expect(await nodeIdOf(bytes(identity.public))).toBe(identity.node)
  })
  test.each(VECTORS.cards.good)('$name is believed', async (vector) => {
    const card = await parseCard(vector.text)
    expect(hex(card.signed.signature)).toBe(vector.signature)
    expect(hex(card.signed.input)).toBe(VECTORS.cards.signing_prefix + vector.signed)
    const body = await verifyCard(card, vector.expected_node as NodeId)
    expect(hex(card.signed.identity)).toBe(vector.identity)
    expect(body.sequence).toBe(vector.sequence)
    const ids = await Promise.all(body.keys.map(async (key) => hex(await keyIdOf(key.kem, key.publicKey))))
    expect(ids).toEqual(vector.key_ids)
    expect(body.models.map(({ id }) => id)).toEqual(vector.models)
  })
  test.each(VECTORS.cards.faults)('$name', async (vector) => {
    const read = async () => verifyCard(await parseCard(vector.text), vector.expected_node as NodeId)
    expect(await codeOf(read)).toBe(vector.expect)
  })
})

describe('signatures', () => {
  test.each(VECTORS.hello.cases)('$name', async (vector) => {
    const valid = await verify(bytes(vector.identity), bytes(vector.signature), bytes(vector.signing_input))
    expect(valid).toBe(vector.valid)
  })
})

interface OutcomeVector {
  code: string
  another_node: boolean
  same_node_once: boolean
  another_relay: boolean
}

describe('outcomes.json', () => {
  test.each((read('outcomes.json') as { outcomes: OutcomeVector[] }).outcomes)('after $code', (vector) => {
    const { code } = vector
    const { error, again } = lost(utf8(JSON.stringify({ code, message: '' })))
    expect(error.code).toBe(code)
    expect({
      code,
      another_node: again,
      same_node_once: NOT_TWICE.has(code),
      another_relay: ELSEWHERE.has(code),
    }).toEqual(vector)
  })

  test('names every ending that is acted on', () => {
    const named = (read('outcomes.json') as { outcomes: OutcomeVector[] }).outcomes.map(({ code }) => code)
    expect(named).toEqual(expect.arrayContaining([...FOR_ANOTHER_NODE, ...ELSEWHERE]))
  })
})
