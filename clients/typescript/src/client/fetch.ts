/**
 * A `fetch` that goes under programs which speak OpenAI: their request is sealed, the node's answer is their response.
 *
 *     new OpenAI({ baseURL: 'https://token.place/v1', apiKey: 'none', fetch: createFetch(client) })
 *
 * The host in the base URL is never contacted; only the path after `/v1` counts.
 */
import { ApiError, type ErrorBody, NoNode, Refused, Stopped, TokenPlaceError } from '../errors.ts'
import { object } from '../wire/bytes.ts'
import type { Answer } from './answer.ts'
import type { Client } from './client.ts'

/** A `fetch` for the `openai` package, or any program that speaks OpenAI over fetch. */
export function createFetch(
  client: Client,
): (input: string | URL | Request, init?: RequestInit) => Promise<Response> {
  return async (input, init) => {
    const request = new Request(input, init)
    const path = /\/v\d+(\/.*)?$/.exec(new URL(request.url).pathname)?.[0]
    try {
      if (path === undefined) throw new ApiError('Paths begin with /v1.', 404, 'invalid_request_error', 'not_found')
      if (request.method === 'GET') return await listing(client, path, request.signal)
      const body = await request.text()
      return respond(await client.ask(path, body, { model: modelOf(body), signal: request.signal }))
    } catch (error) {
      if (!(error instanceof TokenPlaceError)) throw error
      // As fetch does, so that programs know their own abort again.
      if (error instanceof Stopped) throw new DOMException(error.message, 'AbortError')
      return refuse(error)
    }
  }
}

function modelOf(body: string): string | null {
  try {
    const { model } = object(body)
    return typeof model === 'string' ? model : null
  } catch {
    return null // the node says what is wrong with it, in OpenAI's words
  }
}

/** The answer as a response. A stream that breaks errors the body: it never looks like an end. */
function respond(answer: Answer): Response {
  const chunks = answer.chunks()
  const body = new ReadableStream<Uint8Array>({
    async pull(controller) {
      try {
        const { done, value } = await chunks.next()
        if (done) controller.close()
        else controller.enqueue(value)
      } catch (error) {
        controller.error(error)
      }
    },
    // `return` would wait for a piece that is still to come; closing does not.
    cancel: () => answer.close(),
  })
  return new Response(body, {
    status: answer.head.status,
    headers: {
      'content-type': answer.head.contentType,
      'x-token-place-privacy': 'end-to-end',
      'x-token-place-node': answer.node,
    },
  })
}

async function listing(client: Client, path: string, signal: AbortSignal): Promise<Response> {
  const served = await client.models({ signal })
  const shown = served.map(({ id, nodes, card }) => ({
    id,
    object: 'model',
    created: 0,
    owned_by: 'token.place',
    nodes,
    ...(card ? { context_length: card.context, capabilities: card.capabilities } : {}),
  }))
  const [, wanted] = /^\/v\d+\/models\/(.+)$/.exec(path) ?? []
  if (wanted !== undefined) {
    const found = shown.find(({ id }) => id === decodeURIComponent(wanted))
    if (found) return Response.json(found)
    throw new NoNode(`No node serves ${decodeURIComponent(wanted)} right now.`)
  }
  if (/^\/v\d+\/models$/.test(path)) return Response.json({ object: 'list', data: shown })
  throw new ApiError('This can only be asked with POST.', 405, 'invalid_request_error', 'method_not_allowed')
}

/** An error in OpenAI's shape. What trying again cannot mend says so, in the header that OpenAI's own programs heed. */
function refuse(error: TokenPlaceError): Response {
  const status =
    error instanceof ApiError || error instanceof Refused ? error.status : error instanceof NoNode ? 404 : 502
  const kind = status >= 500 ? 'server_error' : status === 429 ? 'rate_limit_error' : 'invalid_request_error'
  const code = error instanceof NoNode ? 'model_not_found' : error.code
  const body: ErrorBody = { error: { message: error.message, type: kind, param: null, code } }
  const headers = new Headers({ 'x-should-retry': String(status === 429 || status === 503) })
  if (error instanceof Refused && error.retryAfter !== null) headers.set('retry-after', String(error.retryAfter))
  return Response.json(body, { status, headers })
}
