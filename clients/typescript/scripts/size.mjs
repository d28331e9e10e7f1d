// What a page loads for the client, bundled, minified and gzipped. The noble fallback is a chunk of its own, which current
// browsers never ask for; createFetch is only for those who import it.
import { gzipSync } from 'node:zlib'
import { build } from 'vite'

const entry = 'virtual:page'
const source = `export { Client, Memory, TokenPlaceError } from '${process.cwd()}/src/index.ts'`
const { output } = await build({
  configFile: false,
  logLevel: 'error',
  plugins: [{ name: 'entry', resolveId: (id) => (id === entry ? id : null), load: (id) => (id === entry ? source : null) }],
  build: {
    write: false,
    target: 'es2022',
    modulePreload: false,
    rolldownOptions: { input: entry, preserveEntrySignatures: 'strict', output: { format: 'es', minify: true } },
  },
})
let loaded = 0
for (const { fileName, code, isDynamicEntry } of output) {
  const size = gzipSync(code, { level: 9 }).length
  if (!isDynamicEntry) loaded += size
  console.log(`${fileName.padEnd(32)} ${String(size).padStart(6)} bytes gzipped${isDynamicEntry ? ', only where needed' : ''}`)
}
console.log(`loaded: ${loaded} bytes`)
if (loaded > 15 * 1024) process.exitCode = 1
