import type { JSX } from 'preact'
import { useEffect, useRef, useState } from 'preact/hooks'
import type { Book } from '../chats/book.ts'
import { ACCEPTED, MOST_PICTURES, picturesIn, readPicture } from '../chats/pictures.ts'
import type { Picture } from '../chats/types.ts'
import { Icon } from './icons.tsx'

/** A finger has no Shift key: there, Enter begins a new line and the button sends. */
const byTouch = (): boolean => matchMedia('(hover: none) and (pointer: coarse)').matches

/** A composition that Enter only confirms (Chinese, Japanese, Korean …) must not send. */
export const composing = (event: KeyboardEvent): boolean => event.isComposing || event.keyCode === 229

export function grow(field: HTMLTextAreaElement): void {
  field.style.height = 'auto'
  field.style.height = `${Math.min(field.scrollHeight, innerHeight * 0.4)}px`
}

export function Composer({ book, onEditLast }: { book: Book; onEditLast: () => void }): JSX.Element {
  const [text, setText] = useState('')
  const [pictures, setPictures] = useState<readonly Picture[]>([])
  const [problem, setProblem] = useState('')
  const [over, setOver] = useState(false)
  const field = useRef<HTMLTextAreaElement>(null)
  const files = useRef<HTMLInputElement>(null)
  const run = book.running.value
  const chat = book.current.value.id
  const seesPictures = book.served.value
    ?.find(({ id }) => id === book.model.value)
    ?.card?.capabilities.includes('vision')
  const barred = book.away.value?.code === 'insecure_context'
  const ready = Boolean(text.trim() || pictures.length) && !barred

  useEffect(() => {
    if (!byTouch()) field.current?.focus()
  }, [chat])
  useEffect(() => {
    if (field.current) grow(field.current)
  }, [text])

  const attach = async (chosen: readonly File[]): Promise<void> => {
    setProblem('')
    const room = MOST_PICTURES - pictures.length
    if (chosen.length > room) setProblem(`One question can carry ${MOST_PICTURES} pictures.`)
    const read = await Promise.allSettled(chosen.slice(0, room).map(readPicture))
    if (read.some(({ status }) => status === 'rejected'))
      setProblem('One of these files is no picture that this browser can read.')
    setPictures((before) => [...before, ...read.flatMap((each) => (each.status === 'fulfilled' ? [each.value] : []))])
  }
  useEffect(() => {
    // Dropping beside the field must not make the browser leave the chat for the picture.
    const hover = (event: DragEvent): void => {
      if (!event.dataTransfer?.types.includes('Files')) return
      event.preventDefault()
      setOver(event.type === 'dragover')
    }
    const drop = (event: DragEvent): void => {
      event.preventDefault()
      setOver(false)
      void attach(picturesIn(event.dataTransfer))
    }
    const leave = (event: DragEvent): void => {
      if (!event.relatedTarget) setOver(false)
    }
    addEventListener('dragover', hover)
    addEventListener('dragleave', leave)
    addEventListener('drop', drop)
    return () => {
      removeEventListener('dragover', hover)
      removeEventListener('dragleave', leave)
      removeEventListener('drop', drop)
    }
  })

  const sending = useRef(false)
  const send = (): void => {
    if (!ready || run || sending.current) return
    sending.current = true
    void book.ask(text.trim(), pictures).then(() => {
      sending.current = false
      setText('')
      setPictures([])
      setProblem('')
    })
  }

  return (
    <form
      class={over ? 'composer over' : 'composer'}
      onSubmit={(event) => {
        event.preventDefault()
        if (run) run.stop()
        else send()
        field.current?.focus()
      }}
    >
      {pictures.length > 0 && (
        <ul class="pictures" aria-label="Attached pictures">
          {pictures.map((picture, i) => (
            <li key={picture.url}>
              <img src={picture.url} alt={picture.name} />
              <button
                type="button"
                aria-label={`Remove ${picture.name}`}
                onClick={() => setPictures(pictures.filter((_, each) => each !== i))}
              >
                <Icon.Close />
              </button>
            </li>
          ))}
        </ul>
      )}
      <div class="field">
        <input
          ref={files}
          type="file"
          accept={ACCEPTED}
          multiple
          hidden
          onChange={(event) => {
            void attach([...(event.currentTarget.files ?? [])])
            event.currentTarget.value = ''
          }}
        />
        <button
          type="button"
          class="icon-button"
          aria-label="Attach pictures"
          title="Attach pictures (or paste, or drop them)"
          onClick={() => files.current?.click()}
        >
          <Icon.Picture />
        </button>
        <textarea
          id="question"
          ref={field}
          rows={1}
          dir="auto"
          value={text}
          placeholder="Ask in private"
          aria-label="Your question"
          aria-describedby="composer-hint"
          autocomplete="off"
          enterkeyhint={byTouch() ? 'enter' : 'send'}
          onInput={(event) => setText(event.currentTarget.value)}
          onPaste={(event) => {
            const pasted = picturesIn(event.clipboardData)
            if (!pasted.length) return
            event.preventDefault()
            void attach(pasted)
          }}
          onKeyDown={(event) => {
            if (composing(event)) return
            if (event.key === 'Enter' && !event.shiftKey && !byTouch()) {
              event.preventDefault()
              send()
            } else if (event.key === 'ArrowUp' && !text && !run) {
              event.preventDefault()
              onEditLast()
            }
          }}
        />
        {run ? (
          <button type="submit" class="send stop" aria-label="Stop the answer" title="Stop (Escape)">
            <Icon.Stop />
          </button>
        ) : (
          <button type="submit" class="send" disabled={!ready} aria-label="Send" title="Send (Enter)">
            <Icon.Send />
          </button>
        )}
      </div>
      <p id="composer-hint" class="hint" role={problem ? 'alert' : undefined}>
        {problem ||
          (barred && 'Nothing can be sealed on this page, so nothing can be sent from it.') ||
          (pictures.length && seesPictures === false
            ? 'The chosen model does not say that it sees pictures; it may answer without them.'
            : 'Sealed in this page. The relay sees times and sizes; the volunteer’s machine that answers reads your words.')}
      </p>
    </form>
  )
}
