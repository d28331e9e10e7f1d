/** The page: chats with volunteers' machines, sealed here. Served by the relay it speaks to, and by nobody else. */
import './styles/base.css'
import './styles/frame.css'
import './styles/chat.css'
import './styles/markdown.css'
import { render } from 'preact'
import { Book } from './chats/book.ts'
import { openShelf } from './chats/shelf.ts'
import { trouble } from './chats/trouble.ts'
import { applyLook } from './settings.ts'
import { App } from './views/App.tsx'

applyLook()
const root = document.getElementById('page')
if (root) {
  const book = new Book(await openShelf(), new URL('./', location.href).href)
  // Without WebCrypto nothing will be asked; say so before a word is typed.
  if (!(globalThis as { crypto?: { subtle?: unknown } }).crypto?.subtle) book.refuse(trouble('insecure_context'))
  else await book.begin()
  root.replaceChildren()
  render(<App book={book} />, root)
}
