import type { JSX } from 'preact'
import { useEffect, useLayoutEffect, useRef, useState } from 'preact/hooks'
import type { Book } from '../chats/book.ts'
import { Icon } from './icons.tsx'
import { MessageView } from './MessageView.tsx'

/** So near to the end (px) that the view follows what comes. */
const NEAR = 80

export function Thread(props: {
  book: Book
  editing: string | null
  onEdit: (id: string | null) => void
}): JSX.Element {
  const { book } = props
  const frame = useRef<HTMLDivElement>(null)
  const list = useRef<HTMLDivElement>(null)
  const following = useRef(true)
  const [away, setAway] = useState(false)
  const messages = book.messages.value
  const chat = book.current.value.id

  const toEnd = (): void => {
    const element = frame.current
    if (element) element.scrollTop = element.scrollHeight
  }
  useLayoutEffect(() => {
    following.current = true
    toEnd()
  }, [chat, messages.length])
  useEffect(() => {
    if (!list.current) return
    const watch = new ResizeObserver(() => {
      if (following.current) toEnd()
    })
    watch.observe(list.current)
    return () => watch.disconnect()
  }, [messages.length === 0])

  if (messages.length === 0) return <Welcome book={book} />
  return (
    <div
      class="thread"
      ref={frame}
      tabIndex={-1}
      onScroll={(event) => {
        const { scrollHeight, scrollTop, clientHeight } = event.currentTarget
        following.current = scrollHeight - scrollTop - clientHeight < NEAR
        setAway(!following.current)
      }}
    >
      <h1 class="unseen">{book.current.value.title}</h1>
      <div class="messages" ref={list}>
        {messages.map((message) => {
          const { id } = message.peek()
          return (
            <MessageView
              key={id}
              book={book}
              message={message}
              editing={props.editing === id}
              onEdit={props.onEdit}
            />
          )
        })}
      </div>
      {away && (
        <button
          type="button"
          class="to-end"
          aria-label="To the newest words"
          onClick={() => {
            following.current = true
            toEnd()
          }}
        >
          <Icon.Down />
        </button>
      )}
    </div>
  )
}

const BEGINNINGS = [
  'Explain end-to-end encryption to a child',
  'Write a haiku about an idle computer',
  'Show a Python function that reverses a list',
]

function Welcome({ book }: { book: Book }): JSX.Element {
  const away = book.away.value
  const served = book.served.value
  const noInsecure = away?.code === 'insecure_context'
  return (
    <div class="thread welcome" tabIndex={-1}>
      <div class="messages">
        <h1>Ask in private</h1>
        <p class="lead">A volunteer’s machine answers. Nobody in between can read a word.</p>
        <ol class="way" aria-label="The way of a question">
          <li>
            <b>You</b>
            <span>Your words are sealed in this page.</span>
          </li>
          <li>
            <b>Relay</b>
            <span>Sees when, how much, and for which node. No words.</span>
          </li>
          <li>
            <b>Node</b>
            <span>Opens it, answers it, seals the answer for you.</span>
          </li>
        </ol>
        {away || served?.length === 0 ? (
          <div class="trouble" role="alert">
            <Icon.Warn />
            <div>
              <strong>{away ? away.title : 'No node is connected right now'}</strong>
              <p>{away ? away.advice : 'Try again in a moment. Or lend a machine: any computer can serve with'}</p>
              {!away && <code>tokenplace node --relay {location.origin}</code>}
              {!noInsecure && (
                <div class="actions">
                  <button type="button" class="plain" onClick={() => void book.look()}>
                    Look again
                  </button>
                </div>
              )}
            </div>
          </div>
        ) : (
          <ul class="beginnings" aria-label="Ways to begin">
            {BEGINNINGS.map((beginning) => (
              <li key={beginning}>
                <button type="button" onClick={() => void book.ask(beginning, [])} disabled={!served}>
                  {beginning}
                </button>
              </li>
            ))}
          </ul>
        )}
      </div>
    </div>
  )
}
