// What a page loads for the client, bundled, minified and gzipped. The noble fallback is a chunk of its own, which current
// browsers never ask for; createFetch is only for those who import it.
import { gzipSync } from 'node:zlib'
import { build } from 'vite'

const entry = 'virtual:page'
const source = `export { Client, Memory, TokenPlaceError } from '${process.cwd()}/src/index.ts'`
const { output } = await build({
  configFile: false,
  logLevel: 'error',
  plugins: [
    { name: 'entry', resolveId: (id) => (id === entry ? id : null), load: (id) => (id === entry ? source : null) },
  ],
  build: {
    write: false,
    target: 'es2022',
    modulePreload: false,
    rolldownOptions: { input: entry, preserveEntrySignatures: 'strict', output: { format: 'es', minify: true } },
  },
})
const files = new Map(output.map((file) => [file.fileName, file]))
const needed = new Set()
const need = (name) => {
  if (needed.has(name)) return
  needed.add(name)
  for (const imported of files.get(name)?.imports ?? []) need(imported)
}
need(output.find(({ isEntry }) => isEntry).fileName)

let loaded = 0
for (const { fileName, code } of output) {
  const size = gzipSync(code, { level: 9 }).length
  if (needed.has(fileName)) loaded += size
  console.log(
    `${fileName.padEnd(34)} ${String(size).padStart(6)} bytes${needed.has(fileName) ? '' : ', only where needed'}`,
  )
}
console.log(`the client: ${loaded} bytes gzipped`)
if (loaded > 16_200) process.exitCode = 1
