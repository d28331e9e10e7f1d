import { parseNodeId, showNodeId } from '@tokenplace/client'
import type { JSX } from 'preact'
import { useEffect, useRef, useState } from 'preact/hooks'
import type { Book } from '../chats/book.ts'
import { asJson, asMarkdown, download, fileName } from '../chats/export.ts'
import { type Look, look, pins, vouchers } from '../settings.ts'
import { Icon } from './icons.tsx'
import { settingsOpen } from './screen.ts'
import { Vouchers } from './Vouchers.tsx'

const LOOKS: readonly (readonly [Look, string])[] = [
  ['system', 'As the system'],
  ['light', 'Light'],
  ['dark', 'Dark'],
]

export function Settings({ book }: { book: Book }): JSX.Element {
  const dialog = useRef<HTMLDialogElement>(null)
  const open = settingsOpen.value
  useEffect(() => {
    if (open && !dialog.current?.open) dialog.current?.showModal()
    else if (!open) dialog.current?.close()
  }, [open])
  return (
    <dialog
      ref={dialog}
      class="settings"
      aria-labelledby="settings-title"
      onClose={() => (settingsOpen.value = false)}
      onClick={(event) => {
        if (event.target === event.currentTarget) settingsOpen.value = false
      }}
    >
      {open && (
        <div class="settings-body">
          <div class="bar">
            <h2 id="settings-title">Settings</h2>
            <button
              type="button"
              class="icon-button"
              onClick={() => (settingsOpen.value = false)}
              aria-label="Close the settings"
              title="Close"
            >
              <Icon.Close />
            </button>
          </div>
          <ThisChat book={book} />
          <fieldset>
            <legend>Look</legend>
            <div class="choice">
              {LOOKS.map(([value, name]) => (
                <label key={value}>
                  <input
                    type="radio"
                    name="look"
                    value={value}
                    checked={look.value === value}
                    onChange={() => (look.value = value)}
                  />
                  <span>{name}</span>
                </label>
              ))}
            </div>
          </fieldset>
          <Pins book={book} />
          <Vouchers book={book} />
          <AllChats book={book} />
        </div>
      )}
    </dialog>
  )
}

function ThisChat({ book }: { book: Book }): JSX.Element {
  const chat = book.current.value
  const some = book.messages.value.length > 0
  const written = () => ({ chat, messages: book.messages.peek().map((message) => message.peek()) })
  return (
    <fieldset>
      <legend>This chat</legend>
      {some && (
        <label class="line">
          <span>Title</span>
          <input
            type="text"
            dir="auto"
            value={chat.title}
            onChange={(event) => book.change({ title: event.currentTarget.value.trim() || chat.title })}
          />
        </label>
      )}
      <label class="line">
        <span>System prompt</span>
        <textarea
          rows={3}
          dir="auto"
          value={chat.system}
          placeholder="How the model should behave (optional)"
          onInput={(event) => book.change({ system: event.currentTarget.value })}
        />
      </label>
      <div class="line">
        <label for="temperature">
          Temperature <output>{chat.temperature === null ? 'the model’s own' : chat.temperature.toFixed(1)}</output>
        </label>
        <div class="slider">
          <input
            id="temperature"
            type="range"
            min="0"
            max="2"
            step="0.1"
            value={chat.temperature ?? 0.7}
            onInput={(event) => book.change({ temperature: Number(event.currentTarget.value) })}
          />
          <button
            type="button"
            class="plain"
            disabled={chat.temperature === null}
            onClick={() => book.change({ temperature: null })}
          >
            Reset
          </button>
        </div>
      </div>
      {some && (
        <div class="actions">
          <button
            type="button"
            class="plain"
            onClick={() => download(`${fileName(chat.title)}.md`, 'text/markdown', asMarkdown(written()))}
          >
            Export as Markdown
          </button>
          <button
            type="button"
            class="plain"
            onClick={() => download(`${fileName(chat.title)}.json`, 'application/json', asJson([written()]))}
          >
            Export as JSON
          </button>
        </div>
      )}
    </fieldset>
  )
}

function Pins({ book }: { book: Book }): JSX.Element {
  const [text, setText] = useState('')
  const [problem, setProblem] = useState('')
  return (
    <fieldset>
      <legend>Nodes you pinned</legend>
      <p class="hint">
        {pins.value.length
          ? 'Only these are asked, and nodes that somebody you trust vouches for.'
          : vouchers.value.length
            ? 'None. Pin one here, or in the privacy panel of a chat.'
            : 'None: any node whose card holds may answer. Pin one here, or in the privacy panel of a chat.'}
      </p>
      <ul class="pins">
        {pins.value.map((pin) => (
          <li key={pin}>
            <code class="fingerprint">{showNodeId(parseNodeId(pin))}</code>
            <button
              type="button"
              class="icon-button"
              aria-label={`Unpin ${pin}`}
              title="Unpin"
              onClick={() => book.unpin(pin)}
            >
              <Icon.Close />
            </button>
          </li>
        ))}
      </ul>
      <form
        class="add-pin"
        onSubmit={(event) => {
          event.preventDefault()
          try {
            book.pin(parseNodeId(text))
            setText('')
            setProblem('')
          } catch {
            setProblem('A node id is 32 characters of a-z and 2-7.')
          }
        }}
      >
        <input
          type="text"
          value={text}
          aria-label="Node id to pin"
          placeholder="abcd-efgh-…"
          autocomplete="off"
          spellcheck={false}
          onInput={(event) => setText(event.currentTarget.value)}
        />
        <button type="submit" class="plain" disabled={!text.trim()}>
          Pin
        </button>
      </form>
      {problem && (
        <p class="hint" role="alert">
          {problem}
        </p>
      )}
    </fieldset>
  )
}

function AllChats({ book }: { book: Book }): JSX.Element {
  const [sure, setSure] = useState(false)
  const count = book.chats.value.length
  return (
    <fieldset>
      <legend>All chats</legend>
      <p class="hint">They are kept in this browser and nowhere else.</p>
      <div class="actions">
        <button
          type="button"
          class="plain"
          disabled={!count}
          onClick={() =>
            void book.all().then((all) => download('token.place-chats.json', 'application/json', asJson(all)))
          }
        >
          Export all
        </button>
        {sure ? (
          <>
            <button
              type="button"
              class="danger"
              onClick={() => {
                setSure(false)
                book.dropAll()
              }}
            >
              Delete {count === 1 ? 'it' : `all ${count}`} for good
            </button>
            <button type="button" class="quiet" onClick={() => setSure(false)}>
              Keep
            </button>
          </>
        ) : (
          <button type="button" class="plain" disabled={!count} onClick={() => setSure(true)}>
            Delete all
          </button>
        )}
      </div>
    </fieldset>
  )
}
