import type { JSX } from 'preact'
import { useEffect, useState } from 'preact/hooks'
import type { Book } from '../chats/book.ts'
import { Composer } from './Composer.tsx'
import { Header } from './Header.tsx'
import { Panel } from './Panel.tsx'
import { chatsShown, drawer, narrow, panelShown, settingsOpen, slim, spoken } from './screen.ts'
import { Settings } from './Settings.tsx'
import { Sidebar } from './Sidebar.tsx'
import { Thread } from './Thread.tsx'

export function App({ book }: { book: Book }): JSX.Element {
  const [editing, setEditing] = useState<string | null>(null)
  const chats = chatsShown()
  const panel = panelShown()
  const covered = (narrow.value && chats) || (slim.value && panel)

  useEffect(() => {
    const onKey = (event: KeyboardEvent): void => {
      if (event.key !== 'Escape' || settingsOpen.peek()) return
      if (drawer.peek()) drawer.value = null
      else book.running.peek()?.stop()
    }
    addEventListener('keydown', onKey)
    return () => removeEventListener('keydown', onKey)
  }, [book])
  useEffect(() => {
    document.title = book.current.value.title ? `${book.current.value.title} · token.place` : 'token.place'
  }, [book.current.value.title])
  useEffect(() => {
    // What lies over the page takes the focus, and gives it back.
    if (!covered) return
    const before = document.activeElement
    document.querySelector<HTMLElement>(chats && narrow.peek() ? '.sidebar button' : '.panel button')?.focus()
    return () => {
      if (before instanceof HTMLElement && before.isConnected) before.focus()
    }
  }, [covered])

  const editLast = (): void => {
    const last = book.messages.peek().findLast((message) => message.peek().role === 'user')
    if (last) setEditing(last.peek().id)
  }
  return (
    <div class="app">
      {chats && <Sidebar book={book} />}
      <main inert={covered}>
        <a class="skip" href="#question">
          Skip to the question field
        </a>
        <Header book={book} />
        <Thread book={book} editing={editing} onEdit={setEditing} />
        <Composer book={book} onEditLast={editLast} />
      </main>
      {panel && <Panel book={book} />}
      {covered && (
        <button type="button" class="scrim" tabIndex={-1} aria-hidden="true" onClick={() => (drawer.value = null)} />
      )}
      <Settings book={book} />
      {book.notice.value && (
        <div class="notice" role="alert">
          {book.notice.value}
          <button type="button" class="quiet" onClick={() => (book.notice.value = '')}>
            Close
          </button>
        </div>
      )}
      <div class="unseen" role="log" aria-live="polite" aria-label="Answers, spoken">
        {spoken.value.map(({ number, sentence }) => (
          <p key={number}>{sentence}</p>
        ))}
      </div>
    </div>
  )
}
