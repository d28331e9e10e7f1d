/**
 * Gives every script and style that a page names its hash, so that a damaged or swapped file does not run. Scripts that are
 * loaded later have theirs in the page's import map, which Chromium 127, Firefox 138, Safari 18 and newer heed; older
 * browsers check the scripts that the page names, and no others.
 */
import { createHash } from 'node:crypto'
import type { Plugin } from 'vite'

export function integrity(): Plugin {
  return {
    name: 'integrity',
    enforce: 'post',
    generateBundle: {
      order: 'post',
      handler(_, bundle) {
        const pages = Object.values(bundle).filter(({ fileName }) => fileName.endsWith('.html'))
        if (!bundle['index.html']) throw new Error('there is no index.html')
        const hashOf = (name: string): string | null => {
          const file = bundle[name]
          if (!file) return null
          return `sha384-${createHash('sha384')
            .update(file.type === 'chunk' ? file.code : file.source)
            .digest('base64')}`
        }
        const later = Object.keys(bundle)
          .filter((name) => name.endsWith('.js'))
          .sort()
        const hashes = Object.fromEntries(later.map((name) => [`./${name}`, hashOf(name)]))
        const map = `<script type="importmap">${JSON.stringify({ integrity: hashes })}</script>\n    `
        for (const page of pages) {
          if (page.type !== 'asset' || typeof page.source !== 'string') throw new Error('a page is no text')
          page.source = page.source.replace(
            /<(script|link)\b([^>]*?)\b(src|href)="\.\/(assets\/[^"]+)"/g,
            (tag, ...parts) => {
              const hash = hashOf(String(parts[3]))
              return hash ? `${tag} integrity="${hash}"` : tag
            },
          )
          // It counts from where it stands, so it stands before the first script.
          page.source = page.source.replace(/<(?=script\b|link rel="modulepreload")/, `${map}<`)
        }
      },
    },
  }
}
