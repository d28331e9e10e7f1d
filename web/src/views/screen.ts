/** What the whole screen has to know: how wide it is, and what lies over it. */
import { signal } from '@preact/signals'
import { panelOpen, sidebarOpen } from '../settings.ts'

function matching(query: string) {
  const media = matchMedia(query)
  const value = signal(media.matches)
  media.addEventListener('change', () => (value.value = media.matches))
  return value
}

/** Too narrow for the list of chats beside the chat. */
export const narrow = matching('(max-width: 820px)')
/** Too narrow for the privacy panel beside the chat. */
export const slim = matching('(max-width: 1120px)')

/** What lies over a narrow screen; wide screens remember their own. */
export const drawer = signal<'chats' | 'privacy' | null>(null)
export const settingsOpen = signal(false)

export const chatsShown = (): boolean => (narrow.value ? drawer.value === 'chats' : sidebarOpen.value)
export const panelShown = (): boolean => (slim.value ? drawer.value === 'privacy' : panelOpen.value)

export function toggleChats(): void {
  if (narrow.value) drawer.value = drawer.value === 'chats' ? null : 'chats'
  else sidebarOpen.value = !sidebarOpen.value
}

export function togglePanel(): void {
  if (slim.value) drawer.value = drawer.value === 'privacy' ? null : 'privacy'
  else panelOpen.value = !panelOpen.value
}

/** What the screen reader hears of an answer: its sentences, as they become whole, each with a number of its own. */
export const spoken = signal<readonly { readonly number: number; readonly sentence: string }[]>([])

let numbered = 0

export function say(sentence: string): void {
  if (sentence.trim()) spoken.value = [...spoken.peek().slice(-40), { number: numbered++, sentence: sentence.trim() }]
}
