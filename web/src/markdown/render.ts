/**
 * Markdown as it streams in. The text is cut into blocks; a block that did not change keeps its elements, so that a long
 * answer costs the page only its last paragraph, and a selection in the part above survives.
 */
import { Marked, type Token, type Tokens } from 'marked'
import { clean } from './clean.ts'

const escape = (text: string): string =>
  text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;').replaceAll('"', '&quot;')

const marked = new Marked({
  gfm: true,
  renderer: {
    // HTML in an answer is words, not markup.
    html: ({ text }) => escape(text),
    image({ href, text, title }) {
      if (/^data:image\//.test(href)) return `<img src="${escape(href)}" alt="${escape(text)}">`
      return `<a href="${escape(href)}" title="${escape(title ?? '')}">${escape(text || href)}</a>`
    },
    // The page has its own first and second headings.
    heading({ tokens, depth }) {
      const level = Math.min(6, depth + 2)
      return `<h${level} dir="auto">${this.parser.parseInline(tokens)}</h${level}>`
    },
    paragraph({ tokens }) {
      return `<p dir="auto">${this.parser.parseInline(tokens)}</p>`
    },
    checkbox: ({ checked }) => (checked ? '☑ ' : '☐ '),
  },
})

interface Block {
  readonly raw: string
  readonly element: HTMLElement
}

/** Colours code when the person has waited for nothing else; loaded when there is code at all. */
const colour = (code: HTMLElement, language: string): Promise<void> =>
  import('./colour.ts').then(
    (chunk) => chunk.colour(code, language),
    () => {}, // away, or not what its hash says: code can be read without
  )

export class MarkdownView {
  readonly #root: HTMLElement
  #blocks: Block[] = []

  constructor(root: HTMLElement) {
    this.#root = root
  }

  /** Show `text`; `whole` says that nothing more will come. */
  show(text: string, whole: boolean): void {
    const tokens = marked.lexer(text).filter(({ type }) => type !== 'space')
    const same = this.#blocks.findIndex(({ raw }, i) => raw !== tokens[i]?.raw)
    const from = same < 0 ? this.#blocks.length : same
    for (const { element } of this.#blocks.splice(from)) element.remove()
    for (const [i, token] of tokens.entries()) {
      if (i < from) continue
      const element = token.type === 'code' ? codeBlock(token as Tokens.Code) : textBlock(token)
      this.#blocks.push({ raw: token.raw, element })
      this.#root.append(element)
    }
    // Code gets its colours once it will not change any more.
    for (const { element } of whole ? this.#blocks : this.#blocks.slice(0, -1)) {
      const code = element.querySelector<HTMLElement>('code[data-language]')
      if (code) finish(code)
    }
  }
}

function textBlock(token: Token): HTMLElement {
  const block = document.createElement('div')
  block.className = 'block'
  block.append(clean(marked.parser([token])))
  for (const table of block.querySelectorAll('table')) {
    const frame = document.createElement('div')
    frame.className = 'table-frame'
    frame.tabIndex = 0
    frame.setAttribute('role', 'group')
    frame.setAttribute('aria-label', 'Table')
    table.replaceWith(frame)
    frame.append(table)
  }
  return block
}

function codeBlock({ text, lang }: Tokens.Code): HTMLElement {
  const language = /^[\w+#-]{1,20}/.exec(lang ?? '')?.[0] ?? ''
  const block = document.createElement('figure')
  block.className = 'block code'
  const bar = document.createElement('figcaption')
  bar.textContent = language || 'text'
  const copy = document.createElement('button')
  copy.type = 'button'
  copy.className = 'quiet copy'
  copy.textContent = 'Copy'
  copy.setAttribute('aria-label', `Copy ${language} code`.replace('  ', ' '))
  copy.addEventListener('click', () => void copyCode(copy, text))
  bar.append(copy)
  const frame = document.createElement('pre')
  frame.tabIndex = 0
  frame.dir = 'ltr'
  const code = document.createElement('code')
  code.textContent = text
  if (language) code.dataset['language'] = language
  frame.append(code)
  block.append(bar, frame)
  return block
}

function finish(code: HTMLElement): void {
  const language = code.dataset['language'] ?? ''
  delete code.dataset['language']
  if (language) void colour(code, language)
}

async function copyCode(button: HTMLElement, text: string): Promise<void> {
  await navigator.clipboard.writeText(text)
  button.textContent = 'Copied'
  setTimeout(() => (button.textContent = 'Copy'), 1500)
}
