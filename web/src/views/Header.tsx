import { showNodeId } from '@tokenplace/client'
import type { JSX } from 'preact'
import type { Book } from '../chats/book.ts'
import type { Reply } from '../chats/types.ts'
import { Icon } from './icons.tsx'
import { Seal } from './Seal.tsx'
import { chatsShown, panelShown, settingsOpen, toggleChats, togglePanel } from './screen.ts'

/** The answer of this chat whose node is known, the latest one. */
export function lastAnswered(book: Book): Reply | null {
  for (const message of book.messages.value.toReversed()) {
    const reply = message.value
    if (reply.role === 'assistant' && reply.node) return reply
  }
  return null
}

export function Header({ book }: { book: Book }): JSX.Element {
  const served = book.served.value
  const model = book.model.value
  const known = served?.some(({ id }) => id === model) ?? false
  const answered = lastAnswered(book)
  const sealing = book.away.value?.code !== 'insecure_context'
  return (
    <header class="bar">
      {!chatsShown() && (
        <button
          type="button"
          class="icon-button"
          onClick={toggleChats}
          aria-label="Show the list of chats"
          title="Chats"
        >
          <Icon.Menu />
        </button>
      )}
      <label class="model">
        <span class="unseen">Model</span>
        <select
          value={model}
          disabled={!served?.length}
          onChange={(event) => book.change({ model: event.currentTarget.value })}
        >
          {!known && (
            <option value={model}>
              {model
                ? `${model} (not served now)`
                : served || book.away.value
                  ? 'No model is served now'
                  : 'Looking for models …'}
            </option>
          )}
          {(served ?? []).map(({ id, nodes, card }) => (
            <option key={id} value={id}>
              {id}
              {card?.capabilities.includes('vision') ? ' · sees pictures' : ''}
              {nodes > 1 ? ` · ${nodes} nodes` : ''}
            </option>
          ))}
        </select>
      </label>
      <span class="space" />
      <button
        type="button"
        class="privacy-button"
        onClick={togglePanel}
        aria-expanded={panelShown()}
        aria-controls="privacy"
        title="Who answers, and what the relay could see"
      >
        {answered?.node ? <Seal node={answered.node} size={24} /> : <Icon.Lock />}
        <span class="privacy-words">
          <span>{sealing ? 'Sealed' : 'Cannot seal'}</span>
          {answered?.node && <span class="fingerprint">{showNodeId(answered.node).slice(0, 9)}</span>}
        </span>
      </button>
      <button
        type="button"
        class="icon-button"
        onClick={() => (settingsOpen.value = true)}
        aria-label="Settings"
        title="Settings"
      >
        <Icon.Tune />
      </button>
    </header>
  )
}
