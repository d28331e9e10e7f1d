/** The small things the page remembers, each with its default. A browser that keeps nothing just gets the defaults. */
import { effect, signal, type Signal } from '@preact/signals'

export type Look = 'system' | 'light' | 'dark'

function kept<Value>(name: string, otherwise: Value, read: (raw: unknown) => Value | null): Signal<Value> {
  const key = `token.place.${name}`
  let first = otherwise
  try {
    first = read(JSON.parse(localStorage.getItem(key) ?? 'null')) ?? otherwise
  } catch {
    // unreadable or forbidden: the default it is
  }
  const value = signal(first)
  effect(() => {
    const text = JSON.stringify(value.value)
    try {
      localStorage.setItem(key, text)
    } catch {
      // forbidden or full: it lasts as long as the page
    }
  })
  return value
}

const word = (raw: unknown): string | null => (typeof raw === 'string' ? raw : null)
const flag = (raw: unknown): boolean | null => (typeof raw === 'boolean' ? raw : null)

export const look = kept<Look>('look', 'system', (raw) =>
  raw === 'light' || raw === 'dark' || raw === 'system' ? raw : null,
)
export const lastModel = kept<string>('model', '', word)
export const lastChat = kept<string>('chat', '', word)
export const sidebarOpen = kept<boolean>('sidebar', true, flag)
export const panelOpen = kept<boolean>('panel', false, flag)
export const pins = kept<readonly string[]>('pins', [], (raw) =>
  Array.isArray(raw) && raw.every((pin) => typeof pin === 'string') ? raw : null,
)

/** A voucher that this person believes, and what it says. Times are unix ms. */
export interface Believed {
  readonly issuer: string
  readonly text: string
  readonly nodes: number
  readonly until: number
}

/** One for each issuer. */
export const vouchers = kept<readonly Believed[]>('vouchers', [], (raw) =>
  Array.isArray(raw) && raw.every(isBelieved) ? raw : null,
)

function isBelieved(raw: unknown): raw is Believed {
  const { issuer, text, nodes, until } = Object(raw) as Record<string, unknown>
  return /^[a-z2-7]{32}$/.test(String(issuer)) && typeof text === 'string' && Number(nodes) > 0 && Number(until) > 0
}

/** The nodes met before, as the client writes them. */
export const nodeMemory = {
  load: (): string | null => {
    try {
      return localStorage.getItem('token.place.nodes')
    } catch {
      return null
    }
  },
  save: (text: string): void => {
    try {
      localStorage.setItem('token.place.nodes', text)
    } catch {
      // nodes show as new again
    }
  },
}

/** Dark or light on the whole page, and in the browser's own bars. */
export function applyLook(): void {
  const system = matchMedia('(prefers-color-scheme: dark)')
  const apply = (): void => {
    const dark = look.value === 'dark' || (look.value === 'system' && system.matches)
    document.documentElement.dataset['look'] = dark ? 'dark' : 'light'
    document.querySelector('meta[name="theme-color"]')?.setAttribute('content', dark ? '#14191b' : '#f6f4ef')
  }
  system.addEventListener('change', apply)
  effect(apply)
}
