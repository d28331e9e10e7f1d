/** Who answers in this chat, and what the relay could see of it: told from the traffic, not promised. */
import { type NodeId, showNodeId, type Standing } from '@tokenplace/client'
import type { JSX } from 'preact'
import type { Book } from '../chats/book.ts'
import { sumsOf } from '../chats/seen.ts'
import type { Reply, Seen } from '../chats/types.ts'
import { pins } from '../settings.ts'
import { lastAnswered } from './Header.tsx'
import { Icon } from './icons.tsx'
import { Seal } from './Seal.tsx'
import { togglePanel } from './screen.ts'

const STANDINGS: Readonly<Record<Standing, string>> = {
  pinned: 'You pinned this node. Nobody is asked but nodes you pinned, or that somebody you trust vouches for.',
  vouched: 'Somebody you trust vouches for this node; see the settings.',
  known: 'This node has answered you before, with the same identity.',
  new: 'You meet this node for the first time. Its card is signed by its own key; whose machine it is, only its owner can tell you.',
}

export const bytes = (count: number): string =>
  count < 1000 ? `${count} B` : count < 1e6 ? `${(count / 1000).toFixed(1)} kB` : `${(count / 1e6).toFixed(1)} MB`

const clock = (at: number): string =>
  new Date(at).toLocaleTimeString([], { hour: '2-digit', minute: '2-digit', second: '2-digit', hourCycle: 'h23' })

const seconds = (ms: number): string => `${(ms / 1000).toFixed(1)} s`

export function Panel({ book }: { book: Book }): JSX.Element {
  const answered = lastAnswered(book)
  const replies = book.messages.value
    .map((message) => message.value)
    .filter((message): message is Reply => message.role === 'assistant' && message.seen.steps.length > 0)
  return (
    <aside class="panel" id="privacy" aria-label="Privacy of this chat">
      <div class="bar">
        <h2>Privacy of this chat</h2>
        <button
          type="button"
          class="icon-button"
          onClick={togglePanel}
          aria-label="Close the privacy panel"
          title="Close"
        >
          <Icon.Close />
        </button>
      </div>
      <div class="panel-body" tabIndex={0} role="group" aria-label="Details">
        <section>
          <h3>Who answers</h3>
          {answered?.node ? (
            <NodeCard book={book} node={answered.node} standing={answered.standing ?? 'known'} />
          ) : (
            <p class="hint">
              Nobody yet. Before anything is sent, the node’s card is checked against its fingerprint.
            </p>
          )}
        </section>
        <section>
          <h3>What the relay could see</h3>
          {replies.length === 0 && <p class="hint">Nothing of this chat yet.</p>}
          {replies.map((reply, i) => (
            <SeenView
              key={reply.id}
              seen={reply.seen}
              node={reply.node}
              number={i + 1}
              open={i === replies.length - 1}
            />
          ))}
          {replies.length > 0 && <p class="hint">And your network address, as with every page you open.</p>}
        </section>
        <section>
          <h3>What it could not</h3>
          <p class="hint">
            Your words and pictures, the answer, the system prompt, the temperature. They are sealed with X25519 and
            ML-KEM-768 together and padded, so that sizes do not spell them.
          </p>
        </section>
        <section>
          <h3>Who can read it</h3>
          <p class="hint">
            The machine that answers: a model has to read a question to answer it, and its owner could look. Do not
            tell a volunteer’s machine what its owner must not know.
          </p>
          <p class="hint">
            This page came from the relay too. Who must not trust even that can use <code>tokenplace chat</code> or
            the local gateway instead: same seal, installed by yourself.
          </p>
        </section>
      </div>
    </aside>
  )
}

function NodeCard({ book, node, standing }: { book: Book; node: NodeId; standing: Standing }): JSX.Element {
  const pinned = pins.value.includes(node)
  const shown: Standing = pinned ? 'pinned' : standing === 'pinned' ? 'known' : standing
  return (
    <div class="node-card">
      <Seal node={node} size={56} />
      <div>
        <span class={`standing ${shown}`}>{shown}</span>
        <code class="fingerprint whole">{showNodeId(node)}</code>
      </div>
      <p class="hint">{STANDINGS[shown]}</p>
      <button
        type="button"
        class="plain"
        aria-pressed={pinned}
        onClick={() => (pinned ? book.unpin(node) : book.pin(node))}
      >
        {pinned ? 'Unpin this node' : 'Pin: ask only this node'}
      </button>
    </div>
  )
}

const STEPS = {
  directory: 'Asked who serves',
  submit: 'Sealed question',
  resume: 'Came back',
  cancel: 'Stopped',
} as const

function SeenView({
  seen,
  node,
  number,
  open,
}: {
  seen: Seen
  node: NodeId | null
  number: number
  open: boolean
}): JSX.Element {
  const sums = sumsOf(seen)
  const began = seen.steps[0]?.at ?? 0
  return (
    <details class="seen" open={open}>
      <summary>
        <span>Question {number}</span>
        <span class="sums">
          {clock(sums.asked)} · {bytes(sums.sent)} out, {bytes(sums.received)} back
        </span>
      </summary>
      <table>
        <thead class="unseen">
          <tr>
            <th>When</th>
            <th>What</th>
            <th>Size</th>
          </tr>
        </thead>
        <tbody>
          {seen.steps.map((step, i) => (
            <tr key={i}>
              <td>{step.at === began ? clock(step.at) : `+${seconds(step.at - began)}`}</td>
              <td>
                {STEPS[step.what]}
                {step.model ? (
                  <>
                    {' '}
                    <code>{step.model}</code>
                  </>
                ) : null}
                {step.what === 'submit' && node ? (
                  <>
                    {' '}
                    for <code>{showNodeId(step.node ?? node).slice(0, 9)}</code>
                  </>
                ) : null}
                {step.what === 'directory' && step.node ? (
                  <>
                    , of <code>{showNodeId(step.node).slice(0, 9)}</code>
                  </>
                ) : null}
              </td>
              <td>{step.bytes ? bytes(step.bytes) : ''}</td>
            </tr>
          ))}
          {sums.pieces > 0 && (
            <tr>
              <td>+{seconds(sums.lastedMs)}</td>
              <td>
                Answer in {sums.pieces} sealed {sums.pieces === 1 ? 'piece' : 'pieces'}
              </td>
              <td>{bytes(sums.received)}</td>
            </tr>
          )}
        </tbody>
      </table>
      {sums.pieces > 0 && <Pieces seen={seen} />}
    </details>
  )
}

/** The pieces of the answer as the relay saw them: when, and how large. */
function Pieces({ seen }: { seen: Seen }): JSX.Element {
  const width = 280
  const height = 36
  const last = Math.max(1, seen.records.at(-1)?.[0] ?? 1)
  const most = Math.max(...seen.records.map(([, size]) => size))
  const bars = seen.records.map(([at, size]) => {
    const x = ((at / last) * (width - 2)).toFixed(1)
    return `M${x} ${height}v-${Math.max(2, (size / most) * (height - 2)).toFixed(1)}`
  })
  return (
    <svg
      class="pieces"
      viewBox={`0 0 ${width} ${height}`}
      preserveAspectRatio="none"
      role="img"
      aria-label={`${seen.records.length} pieces over ${seconds(last)}, the largest ${bytes(most)}`}
    >
      <path d={bars.join('')} stroke="currentColor" stroke-width="1.600" fill="none" />
    </svg>
  )
}
