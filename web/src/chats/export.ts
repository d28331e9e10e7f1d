/** Chats as files that other programs read. */
import type { Chat, Message } from './types.ts'

interface Written {
  readonly chat: Chat
  readonly messages: readonly Message[]
}

/** All that the page knows of those chats, without what could open answers. */
export function asJson(chats: readonly Written[]): string {
  const exported = chats.map(({ chat, messages }) => ({
    ...chat,
    at: new Date(chat.at).toISOString(),
    messages: messages.map((message) => {
      const at = new Date(message.at).toISOString()
      if (message.role === 'user') return { ...message, at }
      const { bookmark: _, ...rest } = message
      return { ...rest, at }
    }),
  }))
  return JSON.stringify({ format: 'token.place chats, version 1', chats: exported }, null, 2)
}

export function asMarkdown({ chat, messages }: Written): string {
  const parts = messages.map((message) => {
    const who = message.role === 'user' ? 'You' : (message.model ?? 'Answer')
    const pictures =
      message.role === 'user' ? message.pictures.map(({ name }) => `\n\n*[picture: ${name}]*`).join('') : ''
    const ending = message.role === 'assistant' && message.state !== 'whole' ? `\n\n*[${message.state}]*` : ''
    return `## ${who}\n\n${message.text}${pictures}${ending}`
  })
  return [`# ${chat.title}`, ...parts].join('\n\n') + '\n'
}

/** Hand a file to the person. */
export function download(name: string, type: string, content: string): void {
  const url = URL.createObjectURL(new Blob([content], { type }))
  const link = document.createElement('a')
  link.href = url
  link.download = name
  link.click()
  setTimeout(() => URL.revokeObjectURL(url), 10_000)
}

export const fileName = (title: string): string =>
  title
    .replaceAll(/[^\p{L}\p{N}]+/gu, '-')
    .replaceAll(/^-+|-+$/g, '')
    .slice(0, 60) || 'chat'
