/** The notice board's routes, as the page needs them. Everything comes from strangers: shapes are looked at, not believed. */

export interface Live {
  connected: number
  slots: number
  free: number
  models: string[]
  since: string | null
}

export interface Provider {
  id: string
  name: string
  region: string
  status: string
  text: string
  capabilities: string[]
  contact: [string, string][]
  endpoints: { type: string; url: string }[]
  live: Live | null
}

export interface Entry {
  model: string
  mean: number
  count: number
  latest: string | null
  comments: { rating: number; comment: string }[]
}

/** What a route said instead of an answer: a sentence for people, and the field at fault. */
export class Refusal extends Error {
  readonly param: string | null

  constructor(message: string, param: string | null) {
    super(message)
    this.param = param
  }
}

type Fields = Record<string, unknown>

const fields = (value: unknown): Fields => (value !== null && typeof value === 'object' ? (value as Fields) : {})
const list = (value: unknown): unknown[] => (Array.isArray(value) ? value : [])
const text = (value: unknown): string =>
  typeof value === 'string' ? value : typeof value === 'number' ? String(value) : ''
const number = (value: unknown): number => (typeof value === 'number' ? value : 0)

async function ask(path: string, content?: unknown): Promise<Fields> {
  let answer: Response
  try {
    answer = await fetch(path, {
      ...(content === undefined
        ? {}
        : { method: 'POST', body: JSON.stringify(content), headers: { 'content-type': 'application/json' } }),
      cache: 'no-store',
      credentials: 'omit',
    })
  } catch {
    throw new Refusal('The relay cannot be reached. Try again in a moment.', null)
  }
  const told = fields(await answer.json().catch(() => null))
  if (answer.ok) return told
  const error = fields(told['error'])
  throw new Refusal(text(error['message']) || `The relay answered ${answer.status}.`, text(error['param']) || null)
}

export async function providers(path: string): Promise<Provider[]> {
  return list((await ask(path))['data']).map((each) => {
    const entry = fields(each)
    const live = fields(entry['live'])
    return {
      id: text(entry['id']),
      name: text(entry['name']),
      region: text(entry['region']),
      status: text(entry['status']),
      text: text(entry['description']) || text(entry['notes']),
      capabilities: list(entry['capabilities']).map(text),
      contact: Object.entries(fields(entry['contact'])).map(([way, said]) => [way, text(said)]),
      endpoints: list(entry['endpoints']).map((endpoint) => ({
        type: text(fields(endpoint)['type']),
        url: text(fields(endpoint)['url']),
      })),
      live: entry['live']
        ? {
            connected: number(live['connected']),
            slots: number(live['slots']),
            free: number(live['free']),
            models: list(live['models']).map(text),
            since: text(live['since']) || null,
          }
        : null,
    }
  })
}

export async function leaderboard(): Promise<Entry[]> {
  return list((await ask('./api/v1/community/leaderboard?limit=100'))['entries']).map((each) => {
    const entry = fields(each)
    return {
      model: text(entry['model_id']),
      mean: number(entry['average_rating']),
      count: number(entry['ratings_count']),
      latest: text(entry['last_feedback_at']) || null,
      comments: list(entry['comments']).map((comment) => ({
        rating: number(fields(comment)['rating']),
        comment: text(fields(comment)['comment']),
      })),
    }
  })
}

/** What is served now: each model with how many nodes serve it. */
export async function served(): Promise<Map<string, number>> {
  const models = fields((await ask('./relay/v2/nodes?limit=1'))['models'])
  return new Map(Object.entries(models).map(([model, nodes]) => [model, number(nodes)]))
}

export async function offered(): Promise<{ total: number; regions: string[] }> {
  const told = await ask('./api/v1/community/contributions/summary')
  return { total: number(told['total_submissions']), regions: list(told['regions']).map(text) }
}

export const rate = (content: Fields): Promise<Fields> => ask('./api/v1/community/feedback', content)
export const offer = (content: Fields): Promise<Fields> => ask('./api/v1/community/contributions', content)
