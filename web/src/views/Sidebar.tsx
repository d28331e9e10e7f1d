import type { JSX } from 'preact'
import { useState } from 'preact/hooks'
import type { Book } from '../chats/book.ts'
import { Icon } from './icons.tsx'
import { drawer, toggleChats } from './screen.ts'

const DAY = 24 * 60 * 60 * 1000

function group(at: number, today: number): string {
  if (at >= today) return 'Today'
  if (at >= today - DAY) return 'Yesterday'
  if (at >= today - 7 * DAY) return 'This week'
  return 'Earlier'
}

export function Sidebar({ book }: { book: Book }): JSX.Element {
  const [dropping, setDropping] = useState<string | null>(null)
  const today = new Date().setHours(0, 0, 0, 0)
  const groups = new Map<string, typeof book.chats.value>()
  for (const chat of book.chats.value) {
    const name = group(chat.at, today)
    groups.set(name, [...(groups.get(name) ?? []), chat])
  }
  const running = new Set([...book.runs.value.values()].map((run) => run.reply.peek().chat))
  return (
    <nav class="sidebar" aria-label="Chats">
      <div class="bar">
        <span class="brand">
          <img src="./icon.svg" alt="" width="26" height="26" />
          token.place
        </span>
        <button
          type="button"
          class="icon-button"
          onClick={toggleChats}
          aria-label="Hide the list of chats"
          title="Hide"
        >
          <Icon.Close />
        </button>
      </div>
      <button
        type="button"
        class="new-chat"
        onClick={() => {
          book.newChat()
          drawer.value = null
          document.getElementById('question')?.focus()
        }}
      >
        <Icon.Plus /> New chat
      </button>
      <div class="chats">
        {[...groups].map(([name, chats]) => (
          <section key={name}>
            <h2>{name}</h2>
            <ul>
              {chats.map((chat) => (
                <li key={chat.id} class={chat.id === book.current.value.id ? 'chat open' : 'chat'}>
                  {dropping === chat.id ? (
                    <div class="dropping" role="group" aria-label={`Delete ${chat.title}?`}>
                      <span>Delete it?</span>
                      <button
                        type="button"
                        class="danger"
                        ref={(button) => button?.focus()}
                        onClick={() => {
                          setDropping(null)
                          book.drop(chat.id)
                        }}
                      >
                        Delete
                      </button>
                      <button type="button" class="quiet" onClick={() => setDropping(null)}>
                        Keep
                      </button>
                    </div>
                  ) : (
                    <>
                      <button
                        type="button"
                        class="chat-title"
                        dir="auto"
                        aria-current={chat.id === book.current.value.id ? 'page' : undefined}
                        onClick={() => {
                          void book.open(chat.id)
                          drawer.value = null
                        }}
                      >
                        {running.has(chat.id) && <span class="working" aria-label="answer is coming" role="img" />}
                        {chat.title}
                      </button>
                      <button
                        type="button"
                        class="icon-button drop"
                        aria-label={`Delete ${chat.title}`}
                        title="Delete"
                        onClick={() => setDropping(chat.id)}
                      >
                        <Icon.Bin />
                      </button>
                    </>
                  )}
                </li>
              ))}
            </ul>
          </section>
        ))}
        {book.chats.value.length === 0 && (
          <p class="hint">Your chats will be listed here. They stay in this browser.</p>
        )}
      </div>
      <p class="hint community-link">
        <a href="./community">Community: who lends machines, and how to join</a>
      </p>
      {!book.lasting && <p class="hint">This browser keeps nothing: chats are gone when the page is closed.</p>}
    </nav>
  )
}
