/** Where chats are kept: this browser's IndexedDB, or only this page's memory where the browser has none to give. */
import type { Chat, Message } from './types.ts'

const NAME = 'token.place'
const VERSION = 1

export interface Shelf {
  /** Whether what is put here is still there tomorrow. */
  readonly lasting: boolean
  chats(): Promise<Chat[]>
  messages(chat: string): Promise<Message[]>
  putChat(chat: Chat): Promise<void>
  putMessages(messages: readonly Message[]): Promise<void>
  dropMessages(ids: readonly string[]): Promise<void>
  /** A chat and all that was said in it. */
  dropChat(id: string): Promise<void>
  clear(): Promise<void>
}

export async function openShelf(): Promise<Shelf> {
  try {
    return new LastingShelf(await open())
  } catch {
    return new PassingShelf() // private windows of some browsers
  }
}

function open(): Promise<IDBDatabase> {
  return new Promise((resolve, reject) => {
    const request = indexedDB.open(NAME, VERSION)
    request.onupgradeneeded = () => {
      request.result.createObjectStore('chats', { keyPath: 'id' })
      request.result.createObjectStore('messages', { keyPath: 'id' }).createIndex('chat', 'chat')
    }
    request.onsuccess = () => resolve(request.result)
    request.onerror = () => reject(request.error ?? new Error('no database'))
    request.onblocked = () => reject(new Error('the database is held by another page'))
  })
}

const settled = <Value>(request: IDBRequest<Value>): Promise<Value> =>
  new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result)
    request.onerror = () => reject(request.error ?? new Error('the database failed'))
  })

class LastingShelf implements Shelf {
  readonly lasting = true
  readonly #database: IDBDatabase

  constructor(database: IDBDatabase) {
    this.#database = database
  }

  chats(): Promise<Chat[]> {
    return settled(this.#store('chats', 'readonly').getAll() as IDBRequest<Chat[]>)
  }

  async messages(chat: string): Promise<Message[]> {
    const found = this.#store('messages', 'readonly').index('chat').getAll(chat) as IDBRequest<Message[]>
    return (await settled(found)).sort((a, b) => a.at - b.at)
  }

  async putChat(chat: Chat): Promise<void> {
    await settled(this.#store('chats').put(chat))
  }

  async putMessages(messages: readonly Message[]): Promise<void> {
    const store = this.#store('messages')
    await Promise.all(messages.map((message) => settled(store.put(message))))
  }

  async dropMessages(ids: readonly string[]): Promise<void> {
    const store = this.#store('messages')
    await Promise.all(ids.map((id) => settled(store.delete(id))))
  }

  async dropChat(id: string): Promise<void> {
    const keys = await settled(this.#store('messages', 'readonly').index('chat').getAllKeys(id))
    const messages = this.#store('messages')
    await Promise.all([settled(this.#store('chats').delete(id)), ...keys.map((key) => settled(messages.delete(key)))])
  }

  async clear(): Promise<void> {
    await Promise.all([settled(this.#store('chats').clear()), settled(this.#store('messages').clear())])
  }

  #store(name: 'chats' | 'messages', mode: IDBTransactionMode = 'readwrite'): IDBObjectStore {
    return this.#database.transaction(name, mode, { durability: 'relaxed' }).objectStore(name)
  }
}

class PassingShelf implements Shelf {
  readonly lasting = false
  readonly #chats = new Map<string, Chat>()
  readonly #messages = new Map<string, Message>()

  chats(): Promise<Chat[]> {
    return Promise.resolve([...this.#chats.values()])
  }

  messages(chat: string): Promise<Message[]> {
    return Promise.resolve([...this.#messages.values()].filter((message) => message.chat === chat))
  }

  putChat(chat: Chat): Promise<void> {
    this.#chats.set(chat.id, chat)
    return Promise.resolve()
  }

  putMessages(messages: readonly Message[]): Promise<void> {
    for (const message of messages) this.#messages.set(message.id, message)
    return Promise.resolve()
  }

  dropMessages(ids: readonly string[]): Promise<void> {
    for (const id of ids) this.#messages.delete(id)
    return Promise.resolve()
  }

  dropChat(id: string): Promise<void> {
    this.#chats.delete(id)
    for (const message of this.#messages.values()) if (message.chat === id) this.#messages.delete(message.id)
    return Promise.resolve()
  }

  clear(): Promise<void> {
    this.#chats.clear()
    this.#messages.clear()
    return Promise.resolve()
  }
}
