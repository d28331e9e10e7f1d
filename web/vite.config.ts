import { fileURLToPath } from 'node:url'
import { defineConfig } from 'vite'
import { integrity } from './integrity.ts'

const at = (path: string): string => fileURLToPath(new URL(path, import.meta.url))

export default defineConfig({
  base: './',
  plugins: [integrity()],
  resolve: { alias: { '@tokenplace/client': at('../clients/typescript/src/index.ts') } },
  build: {
    outDir: at('../src/tokenplace/web/site'),
    emptyOutDir: true,
    rolldownOptions: { input: { index: at('index.html'), community: at('community.html') } },
    target: 'es2022',
    // Nothing may be inlined: the page's policy allows no data: scripts or styles.
    assetsInlineLimit: 0,
    // Only what the page needs at once is named in a page, each with its hash.
    modulePreload: {
      polyfill: false,
      resolveDependencies: (_, files, { hostType }) => (hostType === 'html' ? files : []),
    },
    reportCompressedSize: true,
  },
})
