/** Every vector of spec/vectors/classic.json opens in TypeScript, or is refused as its README says. */
import { createHash } from 'node:crypto'
import { describe, expect, test } from 'vitest'
import {
  type CipherMode,
  ClassicKey,
  ClassicPublicKey,
  ClassicStreamOpener,
  ClassicStreamSealer,
  Envelope,
  openClassic,
  sealClassic,
} from '../src/classic.ts'
import { PendingAnswer } from '../src/sealing/exchange.ts'
import { base64, concat, text, unbase64, utf8 } from '../src/wire/bytes.ts'
import type { JobId } from '../src/wire/ids.ts'
import { RecordKind, RecordSplitter, type StreamRecord } from '../src/wire/stream.ts'
import { codeOf, read } from './vectors.ts'

interface Piece {
  ciphertext: string
  iv: string
  cipherkey?: string
  tag?: string
  mode?: string
  plaintext_b64: string
}
interface Vector extends Partial<Piece> {
  id: string
  kind: 'single' | 'negative' | 'stream' | 'stream-negative' | 'wire' | 'signature'
  key: string
  rsa_padding?: string
  associated_data?: string
  mode_field_present_in_dict?: string
  cipher_mode_arg?: CipherMode
  plaintext_rule?: { repeat_ascii: string; truncate_to: number }
  plaintext_sha256: string
  plaintext_len: number
  chunks: Piece[]
  final_chunk_index: number
  session_aes_key_b64: string
  expect: string
  decrypt_with: string
  json?: Record<string, unknown>
  sse?: string
  plaintext_json: unknown
}
interface File {
  keys: Record<string, Record<string, string> & { private_key_pem: string; public_key_pem: string }>
  vectors: Vector[]
}

const FILE = read('classic.json') as File
const of = (kind: Vector['kind']) => FILE.vectors.filter((vector) => vector.kind === kind)
const named = (id: string) => FILE.vectors.find((vector) => vector.id === id) as Vector
const isOld = ({ rsa_padding }: Vector) => rsa_padding === 'PKCS1v15'
const associatedDataOf = (vector: Vector) => ({ associatedData: unbase64(vector.associated_data ?? '') })

const keys = new Map<string, Promise<ClassicKey>>()
function keyOf(name: string): Promise<ClassicKey> {
  const key = keys.get(name) ?? ClassicKey.fromPem(FILE.keys[name]?.private_key_pem ?? '')
  keys.set(name, key)
  return key
}

/** The message as the original's dict would show it: `mode` in a vector is a note, not a field. */
const envelopeOf = (vector: Vector): Envelope =>
  Envelope.parse({ ...vector, mode: vector.mode_field_present_in_dict }, vector.cipher_mode_arg)

function plaintextOf({ plaintext_b64, plaintext_rule }: Vector): Uint8Array {
  if (plaintext_b64 !== undefined) return unbase64(plaintext_b64)
  const { repeat_ascii: unit, truncate_to: size } = plaintext_rule ?? { repeat_ascii: '', truncate_to: 0 }
  return utf8(unit.repeat(size / unit.length + 1)).slice(0, size)
}

test('no vector is of a kind that these tests do not know', () => {
  const kinds = ['negative', 'signature', 'single', 'stream', 'stream-negative', 'wire']
  expect([...new Set(FILE.vectors.map(({ kind }) => kind))].sort()).toEqual(kinds)
})

describe('a recorded key', () => {
  test.each(Object.keys(FILE.keys))('%s is read in each of its forms', async (name) => {
    const recorded: Record<string, string> = FILE.keys[name] ?? {}
    const { public: key } = await keyOf(name)
    expect(key.pem.trim()).toBe(recorded['public_key_pem']?.trim())
    for (const [form, spelt] of Object.entries(recorded)) {
      if (form.startsWith('public_key')) expect((await ClassicPublicKey.parse(spelt)).keyId).toBe(key.keyId)
    }
    expect((await ClassicPublicKey.parse(key.wire)).wire).toBe(key.wire)
  })
})

describe('a recorded message', () => {
  test.each(of('single').filter((vector) => !isOld(vector)))('opens: $id', async (vector) => {
    const envelope = envelopeOf(vector)
    const plaintext = await openClassic(envelope, await keyOf(vector.key), associatedDataOf(vector))
    expect(plaintext.length).toBe(vector.plaintext_len)
    expect(createHash('sha256').update(plaintext).digest('hex')).toBe(vector.plaintext_sha256)
    expect(Buffer.compare(plaintext, plaintextOf(vector))).toBe(0)
    expect(envelope.mode).toBe(vector.mode)
  })

  test.each(of('single').filter(isOld))('of old JavaScript does not open, and nothing can: $id', async (vector) => {
    const open = async () => openClassic(envelopeOf(vector), await keyOf(vector.key))
    expect(await codeOf(open)).toBe('unopenable')
  })

  test.each(of('single'))('is written as the original writes it: $id', (vector) => {
    const written = envelopeOf(vector).fields()
    for (const name of ['ciphertext', 'cipherkey', 'iv', 'tag'] as const) expect(written[name]).toBe(vector[name])
    expect(written.mode).toBe(vector.mode_field_present_in_dict)
  })

  test.each(of('negative'))('is refused, or known to pass: $id', async (vector) => {
    const open = async () => openClassic(envelopeOf(vector), await keyOf(vector.key), associatedDataOf(vector))
    if (vector.expect.startsWith('plaintext:')) {
      // The flipped IV: nothing in a CBC message could tell.
      expect(base64(await open())).toBe(vector.expect.slice('plaintext:'.length))
      return
    }
    const shapeless = vector.expect.startsWith('raises ValueError') || vector.id.includes('no-tag')
    expect(await codeOf(open)).toBe(shapeless ? 'bad_format' : 'unopenable')
  })
})

describe('a recorded stream', () => {
  test.each(of('stream').filter((vector) => !isOld(vector)))('opens piece by piece: $id', async (vector) => {
    const key = await keyOf(vector.key)
    const opener = new ClassicStreamOpener(key, associatedDataOf(vector))
    for (const piece of vector.chunks) {
      expect(base64(await opener.open(Envelope.parse(piece)))).toBe(piece.plaintext_b64)
    }
    expect(base64(await key.unwrap(unbase64(vector.chunks[0]?.cipherkey ?? '')))).toBe(vector.session_aes_key_b64)
    expect(vector.chunks.length).toBe(vector.final_chunk_index)
  })

  test.each(of('stream').filter(isOld))('of old JavaScript does not open: $id', async (vector) => {
    const opener = new ClassicStreamOpener(await keyOf(vector.key))
    expect(await codeOf(() => opener.open(Envelope.parse(vector.chunks[0] as Piece)))).toBe('unopenable')
  })

  const [first, second] = named('stream-cbc').chunks as [Piece, Piece]
  const without = { ...first, cipherkey: null }
  const faults: Record<string, [name: string, pieces: object[], code: string]> = {
    'neg-stream-replay': ['A', [first, without], 'bad_record'],
    'neg-stream-no-key': ['A', [second], 'bad_format'],
    'neg-stream-key-again': ['A', [first, { ...second, cipherkey: first.cipherkey }], 'bad_record'],
    // An opener has its associated data for the whole stream, so that it cannot change in between.
    'neg-stream-aad-change': ['B', [named('stream-gcm-aad').chunks[0] as Piece], 'unopenable'],
  }
  test.each(of('stream-negative'))('is refused where it is faulty: $id', async ({ id }) => {
    const [name, pieces, code] = faults[id] ?? ['', [], 'unknown']
    const opener = new ClassicStreamOpener(await keyOf(name), { associatedData: utf8(name === 'B' ? 'other' : '') })
    const open = async () => {
      for (const piece of pieces) await opener.open(Envelope.parse(piece))
    }
    expect(await codeOf(open)).toBe(code)
    expect(await codeOf(() => opener.open(Envelope.parse(second)))).toBe('bad_record')
  })
})

describe('the recorded wire', () => {
  test.each(of('wire').filter(({ json }) => json))(
    'opens: $id',
    async ({ json = {}, decrypt_with, plaintext_json }) => {
      const plaintext = await openClassic(Envelope.parse((json['data'] ?? json) as object), await keyOf(decrypt_with))
      expect(JSON.parse(text(plaintext))).toEqual(plaintext_json)
      for (const name of ['client_public_key', 'server_public_key']) {
        const spelt = json[name]
        if (typeof spelt === 'string') expect((await ClassicPublicKey.parse(spelt)).wire).toBe(spelt)
      }
    },
  )

  test.each(of('wire').filter(({ sse }) => sse))('opens: $id', async ({ sse = '', decrypt_with }) => {
    const lines = sse.split('\n').filter(Boolean)
    expect(lines.pop()).toBe('data: [DONE]')
    const opener = new ClassicStreamOpener(await keyOf(decrypt_with))
    const opened: string[] = []
    for (const line of lines) {
      const { data } = JSON.parse(line.slice('data: '.length)) as { data: object }
      opened.push(base64(await opener.open(Envelope.parse(data))))
    }
    expect(opened).toEqual(named('stream-cbc').chunks.map(({ plaintext_b64 }) => plaintext_b64))
  })
})

describe('what is sealed here', () => {
  const modes: CipherMode[] = ['CBC', 'GCM']

  test.each(modes)('opens again, after a journey as JSON: %s', async (mode) => {
    const key = await keyOf('A')
    for (const size of [0, 1, 15, 16, 17, 5000]) {
      const words = crypto.getRandomValues(new Uint8Array(size))
      const envelope = await sealClassic(words, key.public, { mode })
      const again = Envelope.parse(JSON.parse(JSON.stringify(envelope.fields())) as object)
      expect(again).toEqual(envelope)
      expect(base64(await openClassic(again, key))).toBe(base64(words))
    }
  })

  test.each(modes)('opens piece by piece, with one key and an IV for each: %s', async (mode) => {
    const key = await keyOf('B')
    const associatedData = utf8(mode === 'GCM' ? 'context' : '')
    const sealer = await ClassicStreamSealer.to(key.public, { mode, associatedData })
    const pieces = ['one', '', 'three'].map(utf8)
    const sealed: Envelope[] = []
    for (const piece of pieces) sealed.push(await sealer.seal(piece))
    expect(sealed.map(({ cipherkey }) => cipherkey !== null)).toEqual([true, false, false])
    expect(new Set(sealed.map(({ iv }) => base64(iv))).size).toBe(3)
    const opener = new ClassicStreamOpener(key, { associatedData })
    for (const [i, piece] of sealed.entries()) expect(await opener.open(piece)).toEqual(pieces[i])
  })

  test('travels on the relay path, if it is CBC', async () => {
    const key = await keyOf('A')
    const envelope = await sealClassic(utf8('words'), key.public)
    expect(Object.keys(envelope.relayFields()).sort()).toEqual(['chat_history', 'cipherkey', 'iv'])
    expect(Envelope.parse(envelope.relayFields())).toEqual(envelope)
    const gcm = await sealClassic(utf8('words'), key.public, { mode: 'GCM' })
    expect(() => gcm.relayFields()).toThrow(TypeError)
  })

  test('says CBC is no place for associated data, and takes none there', async () => {
    const key = await keyOf('A')
    const associatedData = utf8('context')
    await expect(sealClassic(utf8('words'), key.public, { associatedData })).rejects.toThrow(TypeError)
    const cbc = await sealClassic(utf8('words'), key.public)
    expect(await codeOf(() => openClassic(cbc, key, { associatedData }))).toBe('unopenable')
  })

  test('is not opened after any bit of it was changed, under GCM', async () => {
    const key = await keyOf('A')
    const envelope = await sealClassic(utf8('words'), key.public, { mode: 'GCM' })
    for (const field of ['ciphertext', 'iv', 'tag', 'cipherkey'] as const) {
      const changed = concat(envelope[field] ?? new Uint8Array())
      changed[2] = (changed[2] ?? 0) ^ 4
      expect(await codeOf(() => openClassic(new Envelope({ ...envelope, [field]: changed }), key))).toBe('unopenable')
    }
  })

  test('never has the padding of old JavaScript: that is a clear error', async () => {
    const key = await keyOf('A')
    const pem = FILE.keys['A']?.private_key_pem ?? ''
    const wish = { pkcs1v15: true }
    expect(await codeOf(() => sealClassic(utf8('words'), key.public, wish))).toBe('pkcs1v15_unavailable')
    expect(await codeOf(() => ClassicKey.fromPem(pem, wish))).toBe('pkcs1v15_unavailable')
  })
})

describe('fields that are no envelope', () => {
  const good = { ciphertext: 'AAAA', cipherkey: 'AAAA', iv: base64(new Uint8Array(16)) }
  const shortIv = base64(new Uint8Array(12))
  const tag = base64(new Uint8Array(16))

  test.each([
    [good, 'CBC'],
    [{ ...good, tag: null, mode: null }, 'CBC'],
    [{ ...good, mode: 'cbc' }, 'CBC'],
    [{ ...good, iv: shortIv, tag }, 'GCM'],
    [{ ...good, iv: shortIv, tag, mode: 'gcm', encrypted: true }, 'GCM'],
  ])('are not these: %j', (fields, mode) => {
    expect(Envelope.parse(fields).mode).toBe(mode)
    expect(() => Envelope.parse(fields, mode === 'CBC' ? 'GCM' : 'CBC')).toThrow()
  })

  test.each<object>([
    { ciphertext: null },
    { iv: null },
    { chat_history: 'AAAA' },
    { ciphertext: 'AAA' },
    { ciphertext: 'AA A' },
    { ciphertext: 'AAA-' },
    { ciphertext: 'A===' },
    { ciphertext: 'é' },
    { ciphertext: 7 },
    { cipherkey: ['AAAA'] },
    { iv: shortIv },
    { iv: '' },
    { mode: 'ECB' },
    { mode: '' },
    { mode: 1 },
    { mode: 'GCM' },
    { mode: 'CBC', tag },
    { iv: shortIv, tag: '' },
    { iv: shortIv, tag: tag.slice(0, -4) },
    { tag },
  ])('are refused: %j', async (change) => {
    expect(await codeOf(() => Envelope.parse({ ...good, ...change }))).toBe('bad_format')
  })
})

describe('a key', () => {
  test('of a fresh pair has 2048 bits and opens what is sealed to it', async () => {
    const key = await ClassicKey.generate()
    expect(key.public.bits).toBe(2048)
    const sealed = await sealClassic(utf8('words'), await ClassicPublicKey.parse(key.public.wire))
    expect(text(await openClassic(sealed, key))).toBe('words')
  })

  test.each([1024, 2047, 2049, 16_384])('of %d bits is not made', async (bits) => {
    expect(await codeOf(() => ClassicKey.generate(bits))).toBe('bad_format')
  })

  const bare = (FILE.keys['A']?.public_key_pem ?? '').replaceAll(/-----.*?-----|\s/g, '')
  const changed = (at: number, value: number): string => {
    const der = unbase64(bare)
    der.set([value], at < 0 ? der.length + at : at)
    return base64(der)
  }
  test.each([
    ['nothing', ''],
    ['words', 'not a key at all'],
    ['a private key', FILE.keys['A']?.private_key_pem ?? ''],
    ['half a key', bare.slice(0, 200)],
    ['more after it', base64(concat(unbase64(bare), Uint8Array.of(0)))],
    ['another algorithm', changed(15, 7)],
    ['another exponent', changed(-1, 3)],
    ['an even modulus', changed(-6, 0)],
    ['two keys', `${FILE.keys['A']?.public_key_pem ?? ''}${FILE.keys['B']?.public_key_pem ?? ''}`],
  ])('is none: %s', async (_, spelt) => {
    expect(await codeOf(() => ClassicPublicKey.parse(spelt))).toBe('bad_format')
  })

  test('of 1024 bits is refused, and an endless one is not read', async () => {
    const pair = await crypto.subtle.generateKey(
      { name: 'RSA-OAEP', hash: 'SHA-256', modulusLength: 1024, publicExponent: Uint8Array.of(1, 0, 1) },
      true,
      ['encrypt', 'decrypt'],
    )
    const spki = new Uint8Array(await crypto.subtle.exportKey('spki', pair.publicKey))
    await expect(ClassicPublicKey.parse(base64(spki))).rejects.toThrow(/2048 to 8192/)
    expect(await codeOf(() => ClassicPublicKey.parse('A'.repeat(20_000)))).toBe('too_large')
  })
})

test('a record of a classic answer is cut like others, and has no place in a sealed one', async () => {
  const wire = Uint8Array.of(0, 0, 0, 2, RecordKind.CLASSIC, 123, 125)
  const [record] = new RecordSplitter().feed(wire)
  expect(record).toMatchObject({ kind: 0x83 })
  const pending = new PendingAnswer('0'.repeat(32) as JobId, new Uint8Array(32), new Uint8Array(32))
  const opener = await pending.accept(new Uint8Array(32))
  expect(await codeOf(() => opener.open(record as StreamRecord))).toBe('bad_record')
})
