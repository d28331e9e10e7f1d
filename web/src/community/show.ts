/** Turns what the board says into elements. Words of strangers become text, never markup. */
import type { Entry, Live, Provider } from './api.ts'

type Child = Node | string | null

/** An element with attributes and children. */
export function make(tag: string, attributes: Record<string, string>, ...children: Child[]): HTMLElement {
  const element = document.createElement(tag)
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value)
  element.append(...children.filter((child) => child !== null))
  return element
}

const day = (time: string): string => {
  const at = new Date(time)
  return Number.isNaN(at.getTime()) ? '' : at.toLocaleDateString(undefined, { dateStyle: 'medium' })
}

const counted = (number: number, one: string, several = `${one}s`): string =>
  `${number} ${number === 1 ? one : several}`

function liveLine({ connected, slots, free, models, since }: Live): string {
  if (!connected) return 'Not connected to this relay at this moment.'
  const begun = since ? `, since ${day(since)}` : ''
  return `${counted(connected, 'node')} connected${begun}; ${free} of ${counted(slots, 'slot')} free; serves ${models.join(', ')}.`
}

/** Only what a browser may open without harm becomes a link. */
function address(url: string): Node | string {
  return /^https?:\/\//i.test(url) ? make('a', { href: url, rel: 'noopener noreferrer nofollow' }, url) : url
}

export function providerCard(provider: Provider): HTMLElement {
  const { name, region, status, live } = provider
  const state = live ? status : `${status}, says its entry`
  return make(
    'li',
    { class: 'card' },
    make('h3', { dir: 'auto' }, name),
    make(
      'p',
      {},
      make('span', { class: live ? `state ${live.connected ? 'there' : 'away'}` : 'state' }, state),
      ` ${region}`,
    ),
    live && make('p', {}, liveLine(live)),
    provider.text ? make('p', { dir: 'auto' }, provider.text) : null,
    provider.capabilities.length
      ? make('p', { class: 'hint' }, `Can do: ${provider.capabilities.filter(Boolean).join(', ')}`)
      : null,
    ...provider.endpoints.map(({ type, url }) => make('p', { class: 'hint address' }, `${type} `, address(url))),
    ...provider.contact.map(([way, said]) =>
      make('p', { class: 'hint address' }, `${way} `, way === 'website' ? address(said) : said),
    ),
  )
}

export function entryRows(entry: Entry): HTMLElement[] {
  const comments = entry.comments.map(({ rating, comment }) =>
    make('p', { dir: 'auto' }, make('span', { class: 'unseen' }, `${rating} of 5: `), `“${comment}”`),
  )
  const rows = [
    make(
      'tr',
      {},
      make('th', { scope: 'row' }, entry.model),
      make('td', {}, `${entry.mean.toFixed(2)} of 5`),
      make('td', {}, String(entry.count)),
      make('td', {}, entry.latest ? day(entry.latest) : '–'),
    ),
  ]
  if (comments.length) rows.push(make('tr', { class: 'comments' }, make('td', { colspan: '4' }, ...comments)))
  return rows
}

export function nowLine(models: Map<string, number>): string {
  if (!models.size) return 'Nobody serves a model at this relay at this moment.'
  const each = [...models].map(([model, nodes]) => `${model} (${counted(nodes, 'node')})`)
  return `Served at this relay now: ${each.join(', ')}.`
}
