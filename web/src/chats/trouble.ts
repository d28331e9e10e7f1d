/** Errors in a person's words: what happened, and what to do about it. */
import { Refused, TokenPlaceError } from '@tokenplace/client'
import type { Trouble } from './types.ts'

const WORDS: Readonly<Record<string, readonly [title: string, advice: string]>> = {
  insecure_context: [
    'This page cannot seal anything here',
    'Browsers offer encryption on https and localhost only, and this page came over plain http. Open the relay by ' +
      'https, or run “tokenplace gateway” on this machine and open it at http://localhost. Nothing was sent.',
  ],
  relay_unreachable: [
    'The relay cannot be reached',
    'Check your network connection, then try again. Your question is still here.',
  ],
  no_node: [
    'No node can answer this right now',
    'Nobody who serves this model is connected. Choose another model above, or try again in a moment.',
  ],
  untrusted_card: [
    'This node could not prove who it is',
    'The relay showed keys that the node itself did not sign, so somebody else might read along. Nothing was sent. Try ' +
      'again, and if it happens again use another relay.',
  ],
  not_pinned: [
    'None of the nodes you trust is here',
    'You asked for nodes only that you pinned or that somebody vouches for, and none of them serves this model now. ' +
      'Nothing was sent. Try again later, or change whom you trust in the settings.',
  ],
  bad_record: [
    'The answer was altered on the way',
    'A piece of it did not open, so nothing after it can be trusted. Try again, through another relay if it happens again.',
  ],
  truncated: ['The answer was cut off', 'What you see is not the whole answer. Go on with it, or try again.'],
  node_lost: [
    'The answer broke off',
    'The connection to its node was lost, and did not come back. What arrived is kept. Go on with it when the connection ' +
      'is back, or try again.',
  ],
  no_progress: ['The node stopped working on this', 'Try again; another node will be chosen if there is one.'],
  relay_stopped: ['The relay shut down', 'What arrived is kept. Go on with it, or try again in a moment.'],
  queue_full: ['Too many people are waiting', 'Try again in a little while.'],
  engine_failed: [
    'The node’s model could not answer',
    'Its program failed before the first word, and so did that of every other node asked. Try again in a moment.',
  ],
  engine_full: ['The nodes have no room for this model now', 'Others use all of it. Try again in a little while.'],
  queue_timeout: ['Your turn did not come within a minute', 'The nodes are busy. Try again in a little while.'],
  job_unknown: [
    'This answer is no longer kept',
    'Nodes keep an answer for half a minute after its end. Try again to have it answered anew.',
  ],
  node_unknown: ['The node is not connected any more', 'Try again; another node will be chosen if there is one.'],
  moved: ['This answer goes on in another window', 'Look there, or try again here.'],
  clock_skew: ['The clocks differ too much', 'Set this machine’s date and time, then try again.'],
  too_large: [
    'This is more than one question can carry',
    'Take out a picture or some of the text. The limit is 8 MiB.',
  ],
  context_length_exceeded: [
    'This chat has outgrown the model’s memory',
    'Start a new chat, shorten the question, or choose a model with more context.',
  ],
  interrupted: [
    'This answer was interrupted',
    'The page was closed while it was coming. What arrived is kept; try again for a whole answer.',
  ],
}

export function troubleOf(error: unknown): Trouble {
  if (!(error instanceof TokenPlaceError)) {
    return { code: 'unexpected', title: 'Something went wrong in this page', advice: `Try again. (${String(error)})` }
  }
  const { message } = error
  const picky = /^(?:untrusted_card|no_node)$/.test(error.code) && message.includes('pinned')
  const code = picky ? 'not_pinned' : error.code
  const [title, advice] = WORDS[code] ?? ['This could not be answered', message]
  const wait = error instanceof Refused && error.retryAfter !== null ? ` Best in ${error.retryAfter} s.` : ''
  // The node's own sentence knows more than ours: how many tokens, which field.
  const detail = code === 'context_length_exceeded' || code === 'no_node' ? ` ${message}` : ''
  return { code, title, advice: `${advice}${detail}${wait}` }
}

export function trouble(code: keyof typeof WORDS & string): Trouble {
  const [title, advice] = WORDS[code] ?? ['', '']
  return { code, title, advice }
}

/** Whether going on with the very same answer can help; otherwise it has to be asked anew. */
export function canGoOn(code: string): boolean {
  return ['relay_unreachable', 'truncated', 'node_lost', 'relay_stopped', 'moved', 'unexpected'].includes(code)
}
