/** The two forms: what they send, and where they say what was wrong. */
import { offer, rate, Refusal } from './api.ts'

const CONTACTS = ['email', 'matrix', 'discord', 'website'] as const

const said = (form: HTMLFormElement, name: string): string => {
  const value = new FormData(form).get(name)
  return typeof value === 'string' ? value.trim() : ''
}

/** The field that a refusal is about; `contact.email` is the field `email`, `capabilities[2]` is `capabilities`. */
function fieldOf(form: HTMLFormElement, param: string): HTMLElement | null {
  const name = param.replace(/\[.*/, '').replace(/^contact\.?/, '') || 'email'
  return form.querySelector<HTMLElement>(`[name="${CSS.escape(name)}"]`)
}

function whenSent(form: HTMLFormElement, send: () => Promise<string>, done: () => void): void {
  const line = form.querySelector<HTMLElement>('.said')
  const button = form.querySelector<HTMLButtonElement>('button[type=submit]')
  if (!line || !button) return
  form.addEventListener('submit', (event) => {
    event.preventDefault()
    const invalid = form.querySelector<HTMLElement>(':invalid:not(fieldset)')
    for (const field of form.querySelectorAll('[aria-invalid]')) field.removeAttribute('aria-invalid')
    if (invalid) {
      line.className = 'said wrong'
      line.textContent = 'Something is missing here.'
      mark(invalid)
      return
    }
    button.disabled = true
    void send()
      .then(
        (told) => {
          line.className = 'said'
          line.textContent = told
          form.reset()
          done()
        },
        (error: unknown) => {
          line.className = 'said wrong'
          line.textContent = error instanceof Refusal ? error.message : 'Something went wrong in this page.'
          const field = error instanceof Refusal && error.param ? fieldOf(form, error.param) : null
          if (field) mark(field)
        },
      )
      .finally(() => {
        button.disabled = false
      })
  })
}

function mark(field: HTMLElement): void {
  field.setAttribute('aria-invalid', 'true')
  field.focus()
}

export function begin(rated: () => void, offeredOne: () => void): void {
  const ratings = document.querySelector<HTMLFormElement>('#rate')
  const offers = document.querySelector<HTMLFormElement>('#offer')
  if (!ratings || !offers) return
  whenSent(
    ratings,
    async () => {
      const comment = said(ratings, 'comment')
      const told = await rate({
        model_id: said(ratings, 'model_id'),
        rating: Number(said(ratings, 'rating')),
        ...(comment ? { comment } : {}),
      })
      return told['comment'] === 'awaiting_review'
        ? 'Thank you. Your rating counts now; your comment waits for the operator.'
        : 'Thank you. Your rating counts now.'
    },
    rated,
  )
  whenSent(
    offers,
    async () => {
      const capabilities = said(offers, 'capabilities').split(',')
      const contact = CONTACTS.map((way) => [way, said(offers, way)]).filter(([, value]) => value)
      const told = await offer({
        ...Object.fromEntries(
          ['operator_name', 'region', 'availability', 'hardware', 'notes'].map((name) => [name, said(offers, name)]),
        ),
        capabilities: capabilities.map((word) => word.trim()).filter(Boolean),
        contact: Object.fromEntries(contact) as Record<string, string>,
      })
      const again =
        told['duplicate'] === true ? 'You offered this before; it is still with the operator.' : 'Thank you.'
      return `${again} Your offer’s number is ${String(told['submission_id'])}.`
    },
    offeredOne,
  )
}
