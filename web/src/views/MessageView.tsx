import { showNodeId } from '@tokenplace/client'
import type { Signal } from '@preact/signals'
import type { JSX } from 'preact'
import { useEffect, useLayoutEffect, useRef, useState } from 'preact/hooks'
import type { Book } from '../chats/book.ts'
import { canGoOn } from '../chats/trouble.ts'
import type { Message, Question, Reply } from '../chats/types.ts'
import { MarkdownView } from '../markdown/render.ts'
import { composing, grow } from './Composer.tsx'
import { Icon } from './icons.tsx'
import { Seal } from './Seal.tsx'
import { panelShown, say, togglePanel } from './screen.ts'

export function MessageView(props: {
  book: Book
  message: Signal<Message>
  editing: boolean
  onEdit: (id: string | null) => void
}): JSX.Element {
  const message = props.message.value
  return message.role === 'user' ? (
    <QuestionView {...props} question={message} />
  ) : (
    <ReplyView {...props} reply={message} />
  )
}

function CopyButton({ text }: { text: () => string }): JSX.Element {
  const [copied, setCopied] = useState(false)
  const copy = async (): Promise<void> => {
    await navigator.clipboard.writeText(text())
    setCopied(true)
    setTimeout(() => setCopied(false), 1500)
  }
  return (
    <button
      type="button"
      class="quiet"
      onClick={() => void copy()}
      aria-label={copied ? 'Copied' : 'Copy'}
      title="Copy"
    >
      {copied ? <Icon.Check /> : <Icon.Copy />}
    </button>
  )
}

function QuestionView({
  book,
  question,
  editing,
  onEdit,
}: {
  book: Book
  question: Question
  editing: boolean
  onEdit: (id: string | null) => void
}): JSX.Element {
  return (
    <article class="message question" aria-label="You">
      {question.pictures.length > 0 && (
        <ul class="pictures">
          {question.pictures.map((picture) => (
            <li key={picture.url}>
              <img src={picture.url} alt={picture.name} />
            </li>
          ))}
        </ul>
      )}
      {editing ? (
        <Editor
          text={question.text}
          onCancel={() => onEdit(null)}
          onSend={(text) => {
            onEdit(null)
            book.askInstead(question.id, text)
          }}
        />
      ) : (
        <>
          {question.text && (
            <p class="words" dir="auto">
              {question.text}
            </p>
          )}
          <div class="actions">
            <CopyButton text={() => question.text} />
            <button
              type="button"
              class="quiet"
              onClick={() => onEdit(question.id)}
              aria-label="Edit and ask again"
              title="Edit and ask again"
            >
              <Icon.Edit />
            </button>
          </div>
        </>
      )}
    </article>
  )
}

function Editor({
  text,
  onSend,
  onCancel,
}: {
  text: string
  onSend: (text: string) => void
  onCancel: () => void
}): JSX.Element {
  const field = useRef<HTMLTextAreaElement>(null)
  useEffect(() => {
    if (!field.current) return
    field.current.focus()
    field.current.setSelectionRange(text.length, text.length)
    grow(field.current)
  }, [text])
  const send = (): void => {
    const changed = field.current?.value.trim()
    if (changed) onSend(changed)
  }
  return (
    <form
      class="editor"
      onSubmit={(event) => {
        event.preventDefault()
        send()
      }}
    >
      <textarea
        ref={field}
        defaultValue={text}
        dir="auto"
        aria-label="Edit your question"
        onInput={(event) => grow(event.currentTarget)}
        onKeyDown={(event) => {
          if (composing(event)) return
          if (event.key === 'Escape') {
            event.stopPropagation()
            onCancel()
          } else if (event.key === 'Enter' && !event.shiftKey) {
            event.preventDefault()
            send()
          }
        }}
      />
      <div class="actions">
        <button type="button" class="quiet" onClick={onCancel}>
          Cancel
        </button>
        <button type="submit" class="primary">
          Ask again
        </button>
      </div>
    </form>
  )
}

function ReplyView({ book, reply }: { book: Book; reply: Reply }): JSX.Element {
  const coming = reply.state === 'coming'
  const run = book.runs.value.get(reply.id)
  return (
    <article class="message reply" aria-label={`Answer${reply.model ? ` of ${reply.model}` : ''}`} aria-busy={coming}>
      <Words reply={reply} />
      {coming && !reply.text && <Waiting news={run?.news.value ?? null} here={Boolean(run)} />}
      {coming && reply.text !== '' && run?.news.value?.phase === 'returning' && (
        <Waiting news={run.news.value} here />
      )}
      {coming && reply.text !== '' && <span class="caret" aria-hidden="true" />}
      {reply.trouble && (
        <div class="trouble" role="alert">
          <Icon.Warn />
          <div>
            <strong>{reply.trouble.title}</strong>
            <p>{reply.trouble.advice}</p>
            <div class="actions">
              {reply.bookmark && canGoOn(reply.trouble.code) && (
                <button type="button" class="primary" onClick={() => book.goOn(reply.id)}>
                  Go on with it
                </button>
              )}
              <button type="button" class="plain" onClick={() => book.again(reply.id)}>
                Try again
              </button>
            </div>
          </div>
        </div>
      )}
      {reply.state === 'stopped' && <p class="note">You stopped this answer.</p>}
      {reply.cut && <p class="note">The model ran out of room here; ask it to go on.</p>}
      {!coming && (
        <footer class="actions">
          {reply.text && <CopyButton text={() => reply.text} />}
          {!reply.trouble && (
            <button
              type="button"
              class="quiet"
              onClick={() => book.again(reply.id)}
              aria-label="Answer again"
              title="Answer again"
            >
              <Icon.Again />
            </button>
          )}
          {reply.node && (
            <button
              type="button"
              class="quiet signature"
              onClick={() => panelShown() || togglePanel()}
              title="Who answered, and what the relay could see"
            >
              <Seal node={reply.node} size={18} />
              <span class="fingerprint">{showNodeId(reply.node).slice(0, 4)}</span>
              {reply.standing === 'new' && <span class="standing new">new</span>}
              {(reply.standing === 'pinned' || reply.standing === 'vouched') && (
                <span class={`standing ${reply.standing}`}>{reply.standing}</span>
              )}
            </button>
          )}
          <Speed reply={reply} />
        </footer>
      )}
    </article>
  )
}

/** The answer's words; sentences are said to screen readers as they become whole. */
function Words({ reply }: { reply: Reply }): JSX.Element {
  const root = useRef<HTMLDivElement>(null)
  const view = useRef<MarkdownView | null>(null)
  const said = useRef(reply.state === 'coming' ? 0 : -1)
  const whole = reply.state !== 'coming'
  useLayoutEffect(() => {
    if (!root.current) return
    view.current ??= new MarkdownView(root.current)
    view.current.show(reply.text, whole)
  }, [reply.text, whole])
  useEffect(() => {
    if (said.current < 0) return
    const fresh = reply.text.slice(said.current)
    const end = whole ? fresh.length : (/^[\s\S]*[.!?。！？\n](?=\s|$)/.exec(fresh)?.[0].length ?? 0)
    if (end) {
      say(fresh.slice(0, end).replaceAll(/[`*#|>_]+/g, ' '))
      said.current += end
    }
    if (whole) {
      said.current = -1
      say(reply.state === 'whole' ? 'End of the answer.' : reply.state === 'stopped' ? 'The answer was stopped.' : '')
    }
  }, [reply.text, whole])
  return <div class="words markdown" ref={root} />
}

function Waiting({
  news,
  here,
}: {
  news: { phase: string; position: number | null } | null
  here: boolean
}): JSX.Element {
  const words = !here
    ? 'This answer comes in another window'
    : news?.phase === 'queued'
      ? news.position === null
        ? 'Waiting for a free place'
        : `Waiting for a free place: number ${news.position}`
      : news?.phase === 'returning'
        ? 'Coming back to the answer'
        : news?.phase === 'retrying'
          ? 'Asking another node'
          : 'The node is reading'
  return (
    <p class="waiting" role="status">
      <span class="dots" aria-hidden="true">
        <i />
        <i />
        <i />
      </span>
      {words}
    </p>
  )
}

function Speed({ reply }: { reply: Reply }): JSX.Element | null {
  const { usage, firstMs, wholeMs } = reply
  const tokens = usage?.completion_tokens
  const writing = firstMs !== null && wholeMs !== null ? (wholeMs - firstMs) / 1000 : 0
  const parts = [
    tokens ? `${tokens} tokens` : '',
    tokens && tokens > 1 && writing > 0.05
      ? `${((tokens - 1) / writing).toFixed(tokens / writing < 10 ? 1 : 0)} per second`
      : '',
    firstMs !== null
      ? `first word after ${firstMs < 995 ? `${Math.round(firstMs)} ms` : `${(firstMs / 1000).toFixed(1)} s`}`
      : '',
  ].filter(Boolean)
  if (!parts.length) return null
  return (
    <span
      class="speed"
      title={usage ? `${usage.prompt_tokens} tokens read, ${usage.completion_tokens} written` : undefined}
    >
      {parts.join(' · ')}
    </span>
  )
}
