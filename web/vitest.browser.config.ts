import { fileURLToPath } from 'node:url'
import { defineConfig } from 'vitest/config'

const at = (path: string): string => fileURLToPath(new URL(path, import.meta.url))

/** The browser tests: Debian's Chromium against real relays and nodes. One after the other, they share the machine. */
export default defineConfig({
  root: at('../tests/browser'),
  resolve: {
    alias: {
      'playwright-core': at('node_modules/playwright-core'),
      'axe-core': at('node_modules/axe-core'),
      vitest: at('node_modules/vitest'),
    },
  },
  server: { fs: { allow: [at('..')] } },
  test: { include: ['*.test.ts'], testTimeout: 60_000, hookTimeout: 90_000, fileParallelism: false },
})
