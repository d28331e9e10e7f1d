/** Gives every script and style that index.html names its hash, so that a damaged or swapped file does not run. */
import { createHash } from 'node:crypto'
import type { Plugin } from 'vite'

export function integrity(): Plugin {
  return {
    name: 'integrity',
    enforce: 'post',
    generateBundle: {
      order: 'post',
      handler(_, bundle) {
        const page = bundle['index.html']
        if (page?.type !== 'asset' || typeof page.source !== 'string') throw new Error('there is no index.html')
        const hashOf = (name: string): string | null => {
          const file = bundle[name]
          if (!file) return null
          return `sha384-${createHash('sha384')
            .update(file.type === 'chunk' ? file.code : file.source)
            .digest('base64')}`
        }
        page.source = page.source.replace(
          /<(script|link)\b([^>]*?)\b(src|href)="\.\/(assets\/[^"]+)"/g,
          (tag, ...parts) => {
            const hash = hashOf(String(parts[3]))
            return hash ? `${tag} integrity="${hash}"` : tag
          },
        )
      },
    },
  }
}
