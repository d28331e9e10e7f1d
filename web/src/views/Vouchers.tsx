import { parseNodeId, showNodeId, TokenPlaceError } from '@tokenplace/client'
import type { JSX } from 'preact'
import { useState } from 'preact/hooks'
import type { Book } from '../chats/book.ts'
import { type Believed, vouchers } from '../settings.ts'
import { Icon } from './icons.tsx'

/** Whose vouchers are believed, and a way to believe another's. */
export function Vouchers({ book }: { book: Book }): JSX.Element {
  const [issuer, setIssuer] = useState('')
  const [text, setText] = useState('')
  const [problem, setProblem] = useState('')
  const believe = async (): Promise<void> => {
    try {
      await book.trust(issuer, text)
      setIssuer('')
      setText('')
      setProblem('')
    } catch (error) {
      if (!(error instanceof TokenPlaceError)) throw error
      setProblem(error.message)
    }
  }
  return (
    <fieldset>
      <legend>Who vouches for nodes</legend>
      <p class="hint">
        {vouchers.value.length
          ? 'Only nodes that these vouch for are asked, and those you pinned.'
          : 'Nobody yet. A person or group you trust can sign a list of nodes; paste their id, which they told you, and the list.'}
      </p>
      <ul class="pins">
        {vouchers.value.map((each) => (
          <li key={each.issuer}>
            <div>
              <code class="fingerprint">{showNodeId(parseNodeId(each.issuer))}</code>
              <p class="hint">{reach(each)}</p>
            </div>
            <button
              type="button"
              class="icon-button"
              aria-label={`Do not trust ${each.issuer} any more`}
              title="Do not trust any more"
              onClick={() => book.distrust(each.issuer)}
            >
              <Icon.Close />
            </button>
          </li>
        ))}
      </ul>
      <form
        class="add-voucher"
        onSubmit={(event) => {
          event.preventDefault()
          void believe()
        }}
      >
        <input
          type="text"
          value={issuer}
          aria-label="Id of who vouches"
          placeholder="abcd-efgh-…"
          autocomplete="off"
          spellcheck={false}
          onInput={(event) => setIssuer(event.currentTarget.value)}
        />
        <textarea
          rows={2}
          value={text}
          aria-label="Voucher"
          placeholder="The voucher they signed"
          autocomplete="off"
          spellcheck={false}
          onInput={(event) => setText(event.currentTarget.value)}
        />
        <button type="submit" class="plain" disabled={!issuer.trim() || !text.trim()}>
          Trust
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

function reach({ nodes, until }: Believed): string {
  const day = new Date(until).toLocaleDateString([], { dateStyle: 'medium' })
  if (until <= Date.now()) return `Expired on ${day}: ask for a newer voucher, or nobody but your pins is asked.`
  return `Vouches for ${nodes === 1 ? 'one node' : `${nodes} nodes`} until ${day}.`
}
