/** A chat as the model reads it. */
import type { ChatMessage } from '@tokenplace/client'
import type { Chat, Message } from './types.ts'

export function wordsFor(chat: Chat, messages: readonly Message[]): ChatMessage[] {
  const words: ChatMessage[] = chat.system.trim() ? [{ role: 'system', content: chat.system.trim() }] : []
  for (const message of messages) {
    if (message.role === 'user' && message.pictures.length) {
      const pictures = message.pictures.map(({ url }) => ({ type: 'image_url', image_url: { url } }) as const)
      words.push({ role: 'user', content: [{ type: 'text', text: message.text }, ...pictures] })
    } else if (message.text) {
      words.push({ role: message.role, content: message.text })
    }
  }
  return words
}

/** What a chat is called until somebody calls it something else: how it began. */
export function titleOf(text: string): string {
  const line = text.trim().replaceAll(/\s+/g, ' ')
  const [...characters] = line
  return characters.length > 48 ? `${characters.slice(0, 47).join('').trimEnd()}…` : line || 'Pictures'
}
