/** The notice board for people: who lends machines, how models are rated, offering one's own. */
import '../styles/base.css'
import './board.css'
import { applyLook } from '../settings.ts'
import { leaderboard, offered, type Provider, providers, Refusal, served } from './api.ts'
import { begin } from './forms.ts'
import { entryRows, make, nowLine, providerCard } from './show.ts'

const at = (id: string): HTMLElement => {
  const found = document.getElementById(id)
  if (!found) throw new Error(`the page has no ${id}`)
  return found
}

const reason = (error: unknown): string => (error instanceof Refusal ? error.message : 'This cannot be shown.')

async function showProviders(): Promise<void> {
  const read = await Promise.allSettled([
    providers('./api/v1/community/providers'),
    providers('./api/v1/server-providers'),
  ])
  const found = new Map<string, Provider>()
  const notes: string[] = []
  for (const result of read) {
    if (result.status === 'rejected') notes.push(reason(result.reason))
    else for (const each of result.value) if (!found.has(each.id)) found.set(each.id, each)
  }
  const sorted = [...found.values()].sort((a, b) => (b.live?.connected ?? 0) - (a.live?.connected ?? 0))
  at('providers').replaceChildren(...sorted.map(providerCard))
  if (!sorted.length && !notes.length) notes.push('The operator of this relay has listed nobody yet.')
  at('providers-note').textContent = notes.join(' ')
}

async function showServed(): Promise<void> {
  try {
    const models = await served()
    at('now').textContent = nowLine(models)
    suggest(models.keys())
  } catch (error) {
    at('now').textContent = reason(error)
  }
}

async function showLeaderboard(): Promise<void> {
  try {
    const entries = await leaderboard()
    at('entries').replaceChildren(...entries.flatMap(entryRows))
    at('entries-note').textContent = entries.length ? '' : 'Nobody has rated a model here yet.'
    suggest(entries.map((entry) => entry.model))
  } catch (error) {
    at('entries-note').textContent = reason(error)
  }
}

async function showOffered(): Promise<void> {
  try {
    const { total, regions } = await offered()
    at('offered').textContent = total
      ? `${total} ${total === 1 ? 'machine has' : 'machines have'} been offered so far, in ${regions.join(', ')}.`
      : ''
  } catch {
    at('offered').textContent = ''
  }
}

const suggested = new Set<string>()

function suggest(models: Iterable<string>): void {
  for (const model of models) suggested.add(model)
  at('models').replaceChildren(...[...suggested].sort().map((model) => make('option', { value: model })))
}

applyLook()
begin(
  () => void showLeaderboard(),
  () => void showOffered(),
)
await Promise.all([showProviders(), showServed(), showLeaderboard(), showOffered()])
